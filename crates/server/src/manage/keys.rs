//! `/v1/keys`: management of API keys by admins. The same over HTTP as `multigraft keys` on the
//! machine.

use std::{
    num::{NonZeroU32, NonZeroU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json,
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use multigraft_access::{
    AccessError, Admins, Changes, Grants, Key, KeyLimits, LimitChanges, NewKey, Role, Secret, Store,
};
use multigraft_api as api;
use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::{
    caller::session::Session,
    http::{
        error::ApiError,
        fields::{Fields, whole},
        id::seconds,
    },
};

const HOUR: u64 = 3600;
/// Default time for which the previous secrets stay valid after a rotation, in hours.
const GRACE: u64 = 24;
/// Longest time for which previous secrets may stay valid, in hours: a year.
const LONGEST_GRACE: u64 = 366 * 24;
/// The latest expiry of a key, in seconds since 1970: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// A key in the form of the API, without a secret.
fn convert(key: Key) -> api::Key {
    api::Key {
        role: match key.role {
            Role::Use => api::Role::Use,
            Role::Manage => api::Role::Manage,
            Role::Admin => api::Role::Admin,
        },
        grants: key.grants.texts(),
        limits: api::KeyLimits {
            requests_per_minute: key.limits.requests_per_minute,
            tokens_per_minute: key.limits.tokens_per_minute,
            concurrent_requests: key.limits.concurrent_requests,
            tokens_per_month: key.limits.tokens_per_month,
        },
        created: seconds(key.created),
        expires: key.expires.map(seconds),
        revoked: key.revoked.map(seconds),
        secret: None,
        id: key.id,
        name: key.name,
        tenant: key.tenant,
    }
}

/// `GET /v1/keys`: all keys, including revoked ones, the oldest first.
pub(crate) async fn list(session: Session) -> Result<Json<api::Keys>, ApiError> {
    let keys = session.keys(Store::keys).await?;
    Ok(Json(api::Keys {
        data: keys.into_iter().map(convert).collect(),
    }))
}

/// `GET /v1/keys/{id}`. Here and below, a key's name is accepted in place of its id.
pub(crate) async fn get(session: Session, Path(id): Path<String>) -> Result<Json<api::Key>, ApiError> {
    let key = session.keys(move |store| store.key(&id)).await?;
    Ok(Json(convert(key)))
}

/// `POST /v1/keys`: `{"name", "role"?, "tenant"?, "grants"?, "limits"?, "expires"?}`. Only this
/// answer contains the secret.
pub(crate) async fn add(session: Session, mut fields: Fields) -> Result<Response, ApiError> {
    session.may_manage_keys()?;
    let name = fields.required("name")?;
    let changes = changes(&mut fields)?;
    fields.finish()?;
    let new = NewKey {
        name,
        role: changes.role.unwrap_or(Role::Use),
        tenant: changes.tenant,
        grants: changes.grants.unwrap_or_else(Grants::all),
        limits: changes.limits.apply_to(KeyLimits::default()),
        expires: changes.expires.flatten(),
    };
    let (key, secret) = session.keys(move |store| store.add(&new)).await?;
    Ok(with_secret(StatusCode::CREATED, key, &secret))
}

/// `PATCH /v1/keys/{id}`: `{"role"?, "tenant"?, "grants"?, "limits"?, "expires"?}`. Absent fields
/// stay as they are; null removes a limit or the expiry.
pub(crate) async fn change(
    session: Session,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Result<Json<api::Key>, ApiError> {
    session.may_manage_keys()?;
    let changes = changes(&mut fields)?;
    fields.finish()?;
    let key = session.keys(move |store| store.set(&id, &changes, Admins::OneStays));
    Ok(Json(convert(key.await?)))
}

/// `DELETE /v1/keys/{id}`: revokes the key for good. It stays in the list, because usage records
/// and the audit log refer to its id.
pub(crate) async fn revoke(session: Session, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    session
        .keys(move |store| store.revoke(&id, Admins::OneStays))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/keys/{id}/rotate`: `{"hours"?}`: makes a new secret. The previous secrets stay valid
/// for `hours`. Only this answer contains the new secret.
pub(crate) async fn rotate(
    session: Session,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    session.may_manage_keys()?;
    let hours = fields.unsigned("hours")?.unwrap_or(GRACE);
    if hours > LONGEST_GRACE {
        let problem = format!("is {hours}, but must be at most {LONGEST_GRACE}");
        return Err(fields.complain("hours", &problem));
    }
    fields.finish()?;
    let until = SystemTime::now() + Duration::from_secs(hours * HOUR);
    let (key, secret) = session.keys(move |store| store.rotate(&id, until)).await?;
    Ok(with_secret(StatusCode::OK, key, &secret))
}

fn with_secret(status: StatusCode, key: Key, secret: &Secret) -> Response {
    let shown = api::Key {
        secret: Some(secret.reveal().to_owned()),
        ..convert(key)
    };
    let mut response = (status, Json(shown)).into_response();
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

/// The fields that are common to adding and changing a key.
fn changes(fields: &mut Fields) -> Result<Changes, ApiError> {
    let role = match fields.string("role")? {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|problem: String| ApiError::invalid("role", problem))?,
        ),
    };
    let grants = match fields.list("grants")? {
        None => None,
        Some(grants) => {
            let texts: Option<Vec<&str>> = grants.iter().map(Value::as_str).collect();
            let texts = texts.ok_or_else(|| fields.complain("grants", "must be a list of strings"))?;
            Some(Grants::parse(&texts).map_err(|problem| ApiError::invalid("grants", problem))?)
        }
    };
    let expires = match fields.nullable("expires") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(value) => match whole(&value).filter(|seconds| *seconds <= LAST_SECOND) {
            Some(seconds) => Some(Some(UNIX_EPOCH + Duration::from_secs(seconds))),
            None => {
                let expected = "whole seconds since 1970, or null for never";
                return Err(fields.mismatch("expires", &value, expected));
            }
        },
    };
    Ok(Changes {
        role,
        tenant: fields.string("tenant")?,
        grants,
        limits: limits(fields)?,
        expires,
    })
}

fn limits(fields: &mut Fields) -> Result<LimitChanges, ApiError> {
    let Some(mut given) = fields.object("limits")? else {
        return Ok(LimitChanges::default());
    };
    let changes = LimitChanges {
        requests_per_minute: small(&mut given, "requests_per_minute")?,
        tokens_per_minute: small(&mut given, "tokens_per_minute")?,
        concurrent_requests: small(&mut given, "concurrent_requests")?,
        tokens_per_month: limit(&mut given, "tokens_per_month", i64::MAX as u64)?,
    };
    given.finish()?;
    Ok(changes)
}

fn small(given: &mut Fields, name: &str) -> Result<Option<Option<NonZeroU32>>, ApiError> {
    let limit = limit(given, name, u32::MAX.into())?;
    Ok(limit.map(|limit| limit.and_then(|limit| NonZeroU32::try_from(limit).ok())))
}

fn limit(given: &mut Fields, name: &str, most: u64) -> Result<Option<Option<NonZeroU64>>, ApiError> {
    match given.nullable(name) {
        None => Ok(None),
        Some(Value::Null) => Ok(Some(None)),
        Some(value) => match whole(&value)
            .filter(|limit| *limit <= most)
            .and_then(NonZeroU64::new)
        {
            Some(limit) => Ok(Some(Some(limit))),
            None => {
                let expected = format!("a whole number from 1 to {most}, or null for no limit");
                Err(given.mismatch(name, &value, &expected))
            }
        },
    }
}

impl Session {
    /// Fails unless the caller may see and change keys. Without keys nobody may: the first caller
    /// could otherwise lock everybody else out.
    fn may_manage_keys(&self) -> Result<(), ApiError> {
        if self.account().is_none() {
            let message = "this server has no API keys yet: make the first, an admin's, with `multigraft keys add NAME --role admin \
                           --data FOLDER` on its machine";
            return Err(ApiError::Forbidden(message.to_owned()));
        }
        // The key is looked up again, because it may have been revoked while the body arrived.
        match self.renewed() {
            None => Err(ApiError::Unauthorized("the API key is not valid".to_owned())),
            Some(session) if session.is_admin() => Ok(()),
            Some(_) => Err(ApiError::Forbidden(
                "only an admin's key may see and change keys".to_owned(),
            )),
        }
    }

    /// Reads or changes the stored keys, even if the client disconnects, and reloads them so that
    /// changes take effect.
    async fn keys<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Store) -> Result<T, AccessError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.may_manage_keys()?;
        let Some(access) = self.access().cloned() else {
            return Err(ApiError::Failed("there is no store of keys".to_owned()));
        };
        let changed = async move {
            let done = spawn_blocking(move || {
                let done = ask(access.store())?;
                access.refresh()?;
                Ok(done)
            });
            let done = done
                .await
                .map_err(|_| ApiError::Failed("an internal error; the server's log says more".to_owned()))?;
            done.map_err(failed)
        };
        self.to_the_end(changed).await
    }
}

fn failed(error: AccessError) -> ApiError {
    match error {
        AccessError::Unknown(key) => {
            ApiError::NoAdapter(format!("there is no key `{key}`; GET /v1/keys lists them"))
        }
        AccessError::Revoked(_) | AccessError::NameTaken(_) | AccessError::LastAdmin(_) => {
            ApiError::Conflict(error.to_string())
        }
        AccessError::Invalid(message) => ApiError::malformed(message),
        AccessError::Database(_) | AccessError::Damaged { .. } | AccessError::Random(_) => {
            ApiError::Failed(error.to_string())
        }
    }
}
