//! A key as it is stored.

use std::{fmt, str::FromStr, time::SystemTime};

use crate::{
    error::AccessError,
    grant::Grants,
    limits::{KeyLimits, LimitChanges},
};

/// The longest name of a key or tenant, in bytes.
const LONGEST: usize = 128;

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Use the adapters that its grants cover.
    Use,
    /// That, and add adapters under names that its grants cover, and change those that it added.
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
    /// Public, part of its secrets.
    pub id: String,
    /// What people call it; no two have the same.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Whose requests share prefixes and a fair share with its own.
    pub tenant: String,
    /// What it may use. An admin may use everything.
    pub grants: Grants,
    /// How much its requests may take.
    pub limits: KeyLimits,
    /// When it was made.
    pub created: SystemTime,
    /// When it ends, if it does.
    pub expires: Option<SystemTime>,
    /// When it was revoked.
    pub revoked: Option<SystemTime>,
}

impl Key {
    /// Whether it may use the adapter called `name`.
    pub fn may_use(&self, name: &str) -> bool {
        self.role == Role::Admin || self.grants.cover(name)
    }

    /// Whether it may use the base.
    pub fn may_use_base(&self) -> bool {
        self.role == Role::Admin || self.grants.cover_base()
    }
}

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// 1 to 128 bytes, without control characters.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The same form as a name; `None`: its name.
    pub tenant: Option<String>,
    /// What it may use.
    pub grants: Grants,
    /// How much its requests may take.
    pub limits: KeyLimits,
    /// When it ends.
    pub expires: Option<SystemTime>,
}

/// What is to be changed of a key; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// What it may do.
    pub role: Option<Role>,
    /// Its tenant.
    pub tenant: Option<String>,
    /// What it may use.
    pub grants: Option<Grants>,
    /// How much its requests may take.
    pub limits: LimitChanges,
    /// When it ends; `Some(None)`: never.
    pub expires: Option<Option<SystemTime>>,
}

/// What a change may do to the admins' keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admins {
    /// There is an admin's key for as long as before: for whoever could not make another one
    /// without.
    OneStays,
    /// All of them may end.
    MayEnd,
}

/// Whether `text` can be a key's or tenant's name.
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
