//! `/v1/adapters`: all that there is to know and to do.

use axum::{Json, extract::Path, http::StatusCode};
use multigraft_adapters::{ActivateError, AdapterInfo, Adding, ChangeError, Listed, Residency};
use multigraft_model::AdapterHash;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{defaults, error::ApiError, fields::Fields, openai::seconds, session::Session, state::AppState};

/// An adapter.
#[derive(Debug, Serialize)]
pub(crate) struct Adapter {
    object: &'static str,
    name: String,
    /// `resident`, `cold`, `loading` or `failed`.
    state: &'static str,
    /// Content hash of the version that requests get; null until its files are read for the first time.
    hash: Option<String>,
    /// Where its files come from.
    source: Option<String>,
    /// Which state of the source it is: a commit of the Hub, or what an object store said of it.
    revision: Option<String>,
    /// Whether it stays in memory.
    pinned: bool,
    /// Whether a newer version is being loaded.
    replacing: bool,
    /// Requests since the start; null if the key may not know.
    requests: Option<u64>,
    /// When it was asked for last, in seconds since 1970.
    last_used: Option<u64>,
    /// What it takes in memory; null if it is not there.
    bytes: Option<usize>,
    /// What its files hold; null if it is not in memory.
    info: Option<AdapterInfo>,
    /// Why its last load failed.
    error: Option<String>,
    /// Seconds until the next load is tried.
    retry_after: Option<f64>,
    /// What its requests get where they say nothing.
    defaults: Option<Value>,
    /// The newest last.
    versions: Vec<Version>,
}

#[derive(Debug, Serialize)]
struct Version {
    hash: Option<String>,
    source: String,
    revision: Option<String>,
    added: u64,
    active: bool,
}

impl From<Listed> for Adapter {
    fn from(listed: Listed) -> Self {
        let active = listed.active();
        let versions = listed.versions.iter().map(|version| Version {
            hash: version.hash.map(|hash| hash.to_string()),
            source: version.source.to_string(),
            revision: version.revision.clone(),
            added: seconds(version.added),
            active: version.active,
        });
        let mut adapter = Self {
            object: "adapter",
            state: "",
            hash: active
                .and_then(|version| version.hash)
                .map(|hash| hash.to_string()),
            source: active.map(|version| version.source.to_string()),
            revision: active.and_then(|version| version.revision.clone()),
            pinned: listed.pinned,
            replacing: listed.replacing,
            requests: Some(listed.requests),
            last_used: listed.last_used.map(seconds),
            bytes: None,
            info: None,
            error: None,
            retry_after: None,
            defaults: listed.defaults.map(|defaults| Value::Object((*defaults).clone())),
            versions: versions.collect(),
            name: listed.name,
        };
        adapter.state = match listed.residency {
            Residency::Resident { bytes, info } => {
                adapter.bytes = Some(bytes);
                adapter.info = Some((*info).clone());
                "resident"
            }
            Residency::Cold => "cold",
            Residency::Loading => "loading",
            Residency::Failed { error, retry_after } => {
                adapter.error = Some(error.to_string());
                adapter.retry_after = Some(retry_after.as_secs_f64());
                "failed"
            }
        };
        adapter
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Adapters {
    object: &'static str,
    data: Vec<Adapter>,
    memory: Memory,
}

/// Memory of all adapters together.
#[derive(Debug, Serialize)]
struct Memory {
    bytes: usize,
    /// What they may take; null if it is not bounded.
    limit: Option<usize>,
}

/// `GET /v1/adapters`.
pub(crate) async fn list(state: Session) -> Json<Adapters> {
    let listed = state.list();
    let (bytes, limit) = match state.is_admin() {
        true => state.registry.memory(),
        // What others have in memory is theirs to know.
        false => (listed.iter().map(bytes_of).sum(), usize::MAX),
    };
    Json(Adapters {
        object: "list",
        data: listed.into_iter().map(|listed| seen(&state, listed)).collect(),
        memory: Memory {
            bytes,
            limit: (limit < usize::MAX).then_some(limit),
        },
    })
}

/// `GET /v1/adapters/{name}`. Names may contain slashes.
pub(crate) async fn get(state: Session, Path(name): Path<String>) -> Result<Json<Adapter>, ApiError> {
    shown(&state, &name)
}

/// `POST /v1/adapters`: `{"name", "source", "replace"?, "pinned"?, "defaults"?}`. Answers when requests get it.
pub(crate) async fn add(state: Session, mut fields: Fields) -> Result<(StatusCode, Json<Adapter>), ApiError> {
    let name = fields.required("name")?;
    let source = fields.required("source")?;
    let adding = Adding {
        replace: fields.flag("replace")?.unwrap_or(false),
        pinned: fields.flag("pinned")?,
    };
    let defaults = fields.object("defaults")?;
    let defaults = defaults
        .map(|defaults| defaults::check(defaults, &state))
        .transpose()?;
    fields.finish()?;
    let status = match state.contains(&name) {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    };
    state.add_adapter(&name, &source, adding).await?;
    if let Some(defaults) = defaults {
        set_defaults(&state, &name, defaults).await?;
    }
    Ok((status, shown(&state, &name)?))
}

/// `PATCH /v1/adapters/{name}`: `{"pinned"?, "active"?, "defaults"?}`, where `active` is the hash of one of its versions, or
/// `previous`.
pub(crate) async fn change(
    state: Session,
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
        .map(|defaults| defaults::check(defaults, &state))
        .transpose()?;
    fields.finish()?;
    state.may_manage()?;
    if state.listed(&name).is_none() {
        return Err(unknown(&name));
    }
    state.may_change(&name).await?;
    if let Some(defaults) = defaults {
        set_defaults(&state, &name, defaults).await?;
    }
    if active.is_some() {
        let of = name.clone();
        let activated = state.change(move |registry| registry.activate(&of, hash)).await?;
        activated.map_err(|error| match error {
            ActivateError::Change(error) => not_changed(&error, &name),
            ActivateError::Files(_) | ActivateError::NoEarlier(_) | ActivateError::NoVersion { .. } => {
                ApiError::Unusable(error.to_string())
            }
        })?;
    }
    if let Some(pinned) = pinned {
        let of = name.clone();
        let done = state.change(move |registry| registry.pin(&of, pinned)).await?;
        done.map_err(|error| not_changed(&error, &name))?;
    }
    shown(&state, &name)
}

/// `DELETE /v1/adapters/{name}`: new requests do not find it any more, those under way end as they would have.
pub(crate) async fn remove(state: Session, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    state.remove_adapter(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_defaults(state: &AppState, name: &str, defaults: Map<String, Value>) -> Result<(), ApiError> {
    let of = name.to_owned();
    let done = state
        .change(move |registry| registry.set_defaults(&of, defaults))
        .await?;
    done.map_err(|error| not_changed(&error, name))
}

/// An adapter as the caller may see it: how often others use it is theirs to know.
fn seen(state: &Session, listed: Listed) -> Adapter {
    let mut adapter = Adapter::from(listed);
    if !state.is_admin() {
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

fn shown(state: &Session, name: &str) -> Result<Json<Adapter>, ApiError> {
    let listed = state.listed(name).ok_or_else(|| unknown(name))?;
    Ok(Json(seen(state, listed)))
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
