//! API keys: their fields and changes.

use std::{fmt, str::FromStr, time::SystemTime};

use crate::{
    error::AccessError,
    grant::Grants,
    limits::{KeyLimits, LimitChanges},
};

/// The longest name of a key or a tenant, in bytes.
const LONGEST: usize = 128;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Use the adapters that the key's grants cover.
    Use,
    /// Like `Use`, and add adapters under names that the grants cover, and change those that were
    /// added with this key.
    Manage,
    /// Everything.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Use => "use",
            Self::Manage => "manage",
            Self::Admin => "admin",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "use" => Ok(Self::Use),
            "manage" => Ok(Self::Manage),
            "admin" => Ok(Self::Admin),
            _ => Err(format!("the role is {text:?}, but must be use, manage or admin")),
        }
    }
}

/// A key, without its secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The public id, which is part of the key's secrets.
    pub id: String,
    /// The name that people use. No two keys have the same name.
    pub name: String,
    /// What the key may do.
    pub role: Role,
    /// The tenant: requests of all its keys share a prefix cache and a fair share.
    pub tenant: String,
    /// What the key may use. An admin key may use everything.
    pub grants: Grants,
    /// Rate limits and quotas of the key's requests.
    pub limits: KeyLimits,
    /// When the key was created.
    pub created: SystemTime,
    /// When the key expires; `None` is never.
    pub expires: Option<SystemTime>,
    /// When the key was revoked; `None` if it was not.
    pub revoked: Option<SystemTime>,
}

impl Key {
    /// Whether the key may use the adapter `name`.
    pub fn may_use(&self, name: &str) -> bool {
        self.role == Role::Admin || self.grants.cover(name)
    }

    /// Whether the key may use the base.
    pub fn may_use_base(&self) -> bool {
        self.role == Role::Admin || self.grants.cover_base()
    }
}

/// The fields of a key that is to be created.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The name: 1 to 128 bytes without control characters.
    pub name: String,
    /// What the key may do.
    pub role: Role,
    /// The tenant, in the form of a name; `None` is the key's name.
    pub tenant: Option<String>,
    /// What the key may use.
    pub grants: Grants,
    /// Rate limits and quotas of the key's requests.
    pub limits: KeyLimits,
    /// When the key expires; `None` is never.
    pub expires: Option<SystemTime>,
}

/// Changes of a key; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// What the key may do.
    pub role: Option<Role>,
    /// The tenant.
    pub tenant: Option<String>,
    /// What the key may use.
    pub grants: Option<Grants>,
    /// Rate limits and quotas of the key's requests.
    pub limits: LimitChanges,
    /// When the key expires; `Some(None)` is never.
    pub expires: Option<Option<SystemTime>>,
}

/// Whether a change may leave the server without an admin key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admins {
    /// It may not: after the change, an admin key exists for at least as long as before. For
    /// clients over HTTP, who could not create another one.
    OneStays,
    /// It may: a user of the command line can create another admin key.
    MayEnd,
}

/// Checks that `text` can be the name of a key or a tenant.
pub(crate) fn check_name(what: &str, text: &str) -> Result<(), AccessError> {
    let problem = match text {
        "" => "is empty",
        _ if text.len() > LONGEST => "is longer than 128 bytes",
        _ if text.chars().any(char::is_control) => "holds control characters",
        _ if text.trim() != text => "begins or ends with a space",
        _ => return Ok(()),
    };
    Err(AccessError::Invalid(format!("the {what} {problem}")))
}
