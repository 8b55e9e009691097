//! The caller of a request: an API key, or anybody if the server has no keys.

use std::{sync::Arc, time::SystemTime};

use axum::http::{Extensions, HeaderMap, header};
use multigraft_access::{Access, Actor, Key, Role, Secret};

use super::error::ApiError;

/// The header in which Anthropic's and Azure's clients send the key.
const API_KEY: &str = "x-api-key";

/// The caller of a request: an API key, or anybody if the server has no keys. A value exists only
/// for a valid key or on a server without keys.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Option<Arc<Key>>);

impl Caller {
    /// The caller of a request with these headers.
    pub(crate) fn of_request(access: Option<&Arc<Access>>, headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(access) = access.filter(|access| !access.is_empty()) else {
            return Ok(Self(None));
        };
        // Other schemes may be meant for a proxy.
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let other = headers
            .get(API_KEY)
            .map(|value| value.to_str().unwrap_or_default());
        let sent = bearer.or(other).ok_or_else(|| {
            let message = "this server requires an API key: send the header `Authorization: Bearer mg-…`";
            ApiError::Unauthorized(message.to_owned())
        })?;
        let wrong = || ApiError::Unauthorized("the API key is not valid".to_owned());
        let secret = Secret::parse(sent).ok_or_else(wrong)?;
        match access.check(&secret, SystemTime::now()) {
            Ok(key) => Ok(Self(Some(key))),
            Err(reason) => {
                tracing::info!(key = secret.id(), %reason, "a key was refused");
                Err(wrong())
            }
        }
    }

    /// The caller for the current state of the key with that id, or for no key. `None` if that key
    /// is not valid any more.
    pub(crate) fn of_key(access: Option<&Arc<Access>>, key: Option<&str>) -> Option<Self> {
        let access = access.filter(|access| !access.is_empty());
        match (access, key) {
            (None, None) => Some(Self(None)),
            (Some(access), Some(id)) => access.valid(id, SystemTime::now()).map(|key| Self(Some(key))),
            // The first key was added meanwhile, or the last one removed.
            _ => None,
        }
    }

    /// The key, if the server has keys.
    pub(crate) fn key(&self) -> Option<&Arc<Key>> {
        self.0.as_ref()
    }

    /// The key, unless its role is admin.
    pub(crate) fn limited(&self) -> Option<&Arc<Key>> {
        self.0.as_ref().filter(|key| key.role != Role::Admin)
    }

    /// Whether the caller may see the whole server: an admin's key, or any caller of a server
    /// without keys.
    pub(crate) fn is_admin(&self) -> bool {
        self.limited().is_none()
    }

    /// Whether the key's grants cover the adapter `name`, which may or may not exist.
    pub(crate) fn may_use(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|key| key.may_use(name))
    }

    /// Whether the key's grants cover the base model.
    pub(crate) fn may_use_base(&self) -> bool {
        self.0.as_ref().is_none_or(|key| key.may_use_base())
    }
}

/// The caller as the audit log records it.
pub(crate) fn actor(extensions: &Extensions) -> Actor {
    match extensions.get::<Caller>().and_then(Caller::key) {
        None => Actor::Anybody,
        Some(key) => Actor::Key {
            key: key.id.clone(),
            name: key.name.clone(),
        },
    }
}
