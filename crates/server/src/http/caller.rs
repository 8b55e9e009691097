//! Whose a request is: a key's, or anybody's where there are no keys.

use std::{sync::Arc, time::SystemTime};

use axum::http::{Extensions, HeaderMap, header};
use multigraft_access::{Access, Actor, Key, Role, Secret};

use super::error::ApiError;

/// Anthropic's and Azure's way to send a key.
const API_KEY: &str = "x-api-key";

/// Whose a request is: a key's, or anybody's where there are no keys. Only a key that is valid, or
/// a server without keys, gives one.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Option<Arc<Key>>);

impl Caller {
    /// Who sends a request with these headers.
    pub(crate) fn of_request(access: Option<&Arc<Access>>, headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(access) = access.filter(|access| !access.is_empty()) else {
            return Ok(Self(None));
        };
        // Another scheme may be for a proxy on the way.
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let other = headers
            .get(API_KEY)
            .map(|value| value.to_str().unwrap_or_default());
        let sent = bearer.or(other).ok_or_else(|| {
            let message = "this server wants an API key: send the header `Authorization: Bearer mg-…`";
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

    /// Who is let in by the key of that id as it is now, or without one; `None` if nobody is any
    /// more.
    pub(crate) fn of_key(access: Option<&Arc<Access>>, key: Option<&str>) -> Option<Self> {
        let access = access.filter(|access| !access.is_empty());
        match (access, key) {
            (None, None) => Some(Self(None)),
            (Some(access), Some(id)) => access.valid(id, SystemTime::now()).map(|key| Self(Some(key))),
            // The first key closed the server, or it has no keys any more.
            _ => None,
        }
    }

    /// The key, if there are keys.
    pub(crate) fn key(&self) -> Option<&Arc<Key>> {
        self.0.as_ref()
    }

    /// The key, unless it may do everything.
    pub(crate) fn limited(&self) -> Option<&Arc<Key>> {
        self.0.as_ref().filter(|key| key.role != Role::Admin)
    }

    /// Whether it may see how the server is doing and who uses what.
    pub(crate) fn is_admin(&self) -> bool {
        self.limited().is_none()
    }

    /// Whether it may use the adapter called `name`, if there is one.
    pub(crate) fn may_use(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|key| key.may_use(name))
    }

    /// Whether it may use the base.
    pub(crate) fn may_use_base(&self) -> bool {
        self.0.as_ref().is_none_or(|key| key.may_use_base())
    }
}

/// Who sent a request, as it is written down.
pub(crate) fn actor(extensions: &Extensions) -> Actor {
    match extensions.get::<Caller>().and_then(Caller::key) {
        None => Actor::Anybody,
        Some(key) => Actor::Key {
            key: key.id.clone(),
            name: key.name.clone(),
        },
    }
}
