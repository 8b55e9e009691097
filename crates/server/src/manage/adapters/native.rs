//! `/v1/adapters`: multigraft's own routes for adapters.

use axum::{
    Extension, Json,
    extract::{Path, Query, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use multigraft_adapters::{
    ActivateError, AdapterLimits, AddedBy, Adding, ChangeError, Listed, Residency, Settings,
};
use multigraft_api::{Adapter, AdapterMemory, Adapters, MemoryBudget};
use multigraft_engine::WEIGHTS;
use multigraft_model::AdapterHash;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    convert, defaults,
    events::{self, Stopping},
};
use crate::{
    caller::session::Session,
    http::{error::ApiError, fields::Fields},
};

/// The last segment of the path of events.
const EVENTS: &str = "events";

/// `GET /v1/adapters`.
pub(crate) async fn list(session: Session) -> Json<Adapters> {
    let listed = session.list();
    let all = session.admin_view();
    let (bytes, limit) = match &all {
        Some(all) => all.registry().memory(),
        // A key that is not an admin's sees the memory of its own adapters only.
        None => (listed.iter().map(bytes_of).sum(), usize::MAX),
    };
    Json(Adapters {
        data: listed
            .into_iter()
            .map(|listed| visible(&session, listed))
            .collect(),
        memory: AdapterMemory {
            bytes: bytes as u64,
            limit: (limit < usize::MAX).then_some(limit as u64),
            budget: all.and_then(|all| all.registry().budget()).map(|budget| {
                let (keys_and_values, adapters) = budget.taken();
                MemoryBudget {
                    limit: budget.total() as u64,
                    keys_and_values: keys_and_values as u64,
                    adapters: adapters as u64,
                }
            }),
        },
    })
}

/// `GET /v1/adapters/{name}`, where names may contain slashes, and `GET /v1/adapters/events`. An
/// adapter may be called `events`; it is shown to clients that do not accept events.
pub(crate) async fn get(
    session: Session,
    Path(name): Path<String>,
    stopping: Option<Extension<Stopping>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if name == EVENTS && (wants_events(&headers) || !session.contains(EVENTS)) {
        return Ok(events::respond(
            &session,
            stopping.map(|Extension(stopping)| stopping),
        ));
    }
    Ok(shown(&session, &name)?.into_response())
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/event-stream"))
}

/// An adapter that is to be added.
struct Addition {
    name: String,
    source: String,
    adding: Adding,
}

/// `POST /v1/adapters`: `{"name", "source", "replace"?, "pinned"?, "defaults"?, "limits"?}`.
/// Answers once the adapter is served, or with events until then.
pub(crate) async fn add(
    session: Session,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let name = fields.required("name")?;
    let source = fields.required("source")?;
    let mut adding = Adding {
        replace: fields.flag("replace")?.unwrap_or(false),
        pinned: fields.flag("pinned")?,
        by: AddedBy::Http,
        settings: Settings::default(),
    };
    let defaults = fields.object("defaults")?;
    let defaults = defaults
        .map(|defaults| defaults::check(defaults, &session))
        .transpose()?;
    let limits = limits(&mut fields, &session)?;
    fields.finish()?;
    adding.settings = Settings { defaults, limits };
    let addition = Addition {
        name: name.clone(),
        source,
        adding,
    };
    if wants_events(&headers) {
        let watched = session.clone();
        let added = async move {
            let (_, Json(adapter)) = carry_out(session, addition).await?;
            Ok(adapter)
        };
        return Ok(events::respond_until(&watched, name, added));
    }
    Ok(carry_out(session, addition).await?.into_response())
}

async fn carry_out(session: Session, addition: Addition) -> Result<(StatusCode, Json<Adapter>), ApiError> {
    let Addition { name, source, adding } = addition;
    let status = match session.contains(&name) {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    session.add_adapter(&name, &source, adding).await?;
    Ok((status, shown(&session, &name)?))
}

/// `PATCH /v1/adapters/{name}`: `{"pinned"?, "active"?, "defaults"?, "limits"?}`, where `active` is
/// the hash of one of its versions, or `previous`.
pub(crate) async fn change(
    session: Session,
    Path(name): Path<String>,
    mut fields: Fields,
) -> Result<Json<Adapter>, ApiError> {
    let pinned = fields.flag("pinned")?;
    let active = fields.string("active")?;
    let hash = match active.as_deref() {
        None | Some("previous") => None,
        Some(text) => match AdapterHash::parse(text) {
            Some(hash) => Some(hash),
            None => {
                return Err(fields.complain("active", "must be `previous` or a content hash of 64 digits"));
            }
        },
    };
    let defaults = fields.object("defaults")?;
    let defaults = defaults
        .map(|defaults| defaults::check(defaults, &session))
        .transpose()?;
    let limits = limits(&mut fields, &session)?;
    fields.finish()?;
    let change = Change {
        pinned,
        active: active.map(|_| hash),
        defaults,
        limits,
    };
    let (for_task, changed) = (session.clone(), name.clone());
    // Runs to its end, or a client that disconnects would leave half of the change.
    session
        .to_the_end(async move { change.apply(&for_task, &changed).await })
        .await?;
    shown(&session, &name)
}

/// A change of an adapter.
struct Change {
    pinned: Option<bool>,
    /// The version to activate, if any. The inner `None` is the previous version.
    active: Option<Option<AdapterHash>>,
    defaults: Option<Map<String, Value>>,
    limits: Option<AdapterLimits>,
}

impl Change {
    async fn apply(self, session: &Session, name: &str) -> Result<(), ApiError> {
        session.may_manage()?;
        session.may_pin(self.pinned)?;
        if session.listed(name).is_none() {
            return Err(unknown(name));
        }
        session.may_change(name).await?;
        let adapters = session.adapters();
        if let Some(hash) = self.active {
            let activated = adapters.activate(name, hash).await?;
            activated.map_err(|error| match error {
                ActivateError::Change(error) => not_changed(&error, name),
                ActivateError::Files(_) | ActivateError::NoEarlier(_) | ActivateError::NoVersion { .. } => {
                    ApiError::Unusable(error.to_string())
                }
            })?;
        }
        if let Some(defaults) = self.defaults {
            let done = adapters.set_defaults(name, defaults).await?;
            done.map_err(|error| not_changed(&error, name))?;
        }
        if let Some(limits) = self.limits {
            let done = adapters.set_limits(name, limits).await?;
            done.map_err(|error| not_changed(&error, name))?;
        }
        if let Some(pinned) = self.pinned {
            let done = adapters.pin(name, pinned).await?;
            done.map_err(|error| not_changed(&error, name))?;
        }
        Ok(())
    }
}

/// The query of a removal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Removal {
    /// Whether requests in flight for the adapter are cancelled.
    #[serde(default)]
    now: bool,
}

/// `DELETE /v1/adapters/{name}`: removes the adapter. Requests in flight for it end normally, or
/// with an error if `?now=true`.
pub(crate) async fn remove(
    session: Session,
    Path(name): Path<String>,
    removal: Result<Query<Removal>, QueryRejection>,
) -> Result<StatusCode, ApiError> {
    let Query(removal) = removal.map_err(|error| ApiError::malformed(error.body_text()))?;
    session.remove_adapter(&name, removal.now).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `{"weight"?, "requests_per_minute"?, "tokens_per_minute"?, "concurrent_requests"?,
/// "shared_prefixes"?}`: absent limits are unlimited, and prefixes are not shared by default.
fn limits(fields: &mut Fields, session: &Session) -> Result<Option<AdapterLimits>, ApiError> {
    let Some(given) = fields.object("limits")? else {
        return Ok(None);
    };
    if !session.is_admin() {
        let message = "the limits of an adapter say what others get: only an admin's key may set them";
        return Err(ApiError::Forbidden(message.to_owned()));
    }
    let values = Value::Object(given.into_rest());
    let limits: AdapterLimits = serde_json::from_value(values)
        .map_err(|error| fields.complain("limits", &format!("cannot be used: {error}")))?;
    match WEIGHTS.contains(&limits.weight) {
        true => Ok(Some(limits)),
        false => Err(fields.complain(
            "limits",
            &format!(
                "has the weight {}, but weights are {} to {}",
                limits.weight,
                WEIGHTS.start(),
                WEIGHTS.end()
            ),
        )),
    }
}

/// An adapter as the caller may see it. Only admins see usage figures, because they cover other
/// tenants.
fn visible(session: &Session, listed: Listed) -> Adapter {
    let mut adapter = convert::adapter(listed);
    if !session.is_admin() {
        (adapter.requests, adapter.last_used) = (None, None);
    }
    adapter
}

fn bytes_of(listed: &Listed) -> usize {
    match &listed.residency {
        Residency::Resident { bytes, .. } => *bytes,
        Residency::Cold | Residency::Loading | Residency::Failed { .. } => 0,
    }
}

pub(super) fn shown(session: &Session, name: &str) -> Result<Json<Adapter>, ApiError> {
    let listed = session.listed(name).ok_or_else(|| unknown(name))?;
    Ok(Json(visible(session, listed)))
}

fn not_changed(error: &ChangeError, name: &str) -> ApiError {
    match error {
        ChangeError::Unknown(_) => unknown(name),
        ChangeError::Store(_) => ApiError::Failed(error.to_string()),
    }
}

fn unknown(name: &str) -> ApiError {
    ApiError::NoAdapter(format!(
        "there is no adapter called `{name}`; GET /v1/adapters lists them"
    ))
}
