//! `/v1/batches`.

use std::{collections::BTreeMap, time::SystemTime};

use axum::{
    Json,
    extract::{Path, Query, rejection::QueryRejection},
};
use multigraft_batches::{Batch, NewBatch, Problem, Purpose, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    files::{Page, expiry_seconds, find, within},
    metadata,
};
use crate::{
    caller::session::Session,
    contract::routes,
    http::{
        error::ApiError,
        fields::Fields,
        id::{seconds, unique_id},
    },
};

/// The only completion window, as in OpenAI's API, and its length in seconds.
const WINDOW: (&str, u64) = ("24h", 24 * 60 * 60);

/// `POST /v1/batches`.
pub(crate) async fn create(state: Session, mut fields: Fields) -> Result<Json<Shown>, ApiError> {
    let batches = state.batches()?;
    let input = fields.required("input_file_id")?;
    let endpoint = fields.required("endpoint")?;
    if !routes::batch_paths().any(|path| path == endpoint) {
        let paths: Vec<_> = routes::batch_paths().collect();
        let problem = format!("is {endpoint:?}, but must be one of {}", paths.join(", "));
        return Err(fields.complain("endpoint", &problem));
    }
    let window = fields.required("completion_window")?;
    if window != WINDOW.0 {
        let problem = format!("is {window:?}, but must be \"{}\"", WINDOW.0);
        return Err(fields.complain("completion_window", &problem));
    }
    let metadata = metadata::take(&mut fields)?;
    let keep_output = match fields.object("output_expires_after")? {
        None => None,
        Some(mut after) => {
            let (anchor, seconds) = (after.string("anchor")?, after.unsigned("seconds")?);
            after.finish()?;
            Some(expiry_seconds(
                anchor.as_deref(),
                seconds,
                "output_expires_after",
            )?)
        }
    };
    fields.finish()?;
    let file = find(&state, &input).await?;
    if file.purpose != Purpose::Batch {
        let message =
            format!("`input_file_id`: file `{input}` is what a batch wrote; it is none of requests");
        return Err(ApiError::invalid("input_file_id", message));
    }
    let now = seconds(SystemTime::now());
    let begun = NewBatch {
        id: unique_id("batch_"),
        tenant: state.tenant_name().map(str::to_owned),
        key: state.key_id().map(str::to_owned),
        endpoint,
        input,
        created: now,
        expires: now + WINDOW.1,
        metadata,
        keep_output,
    };
    let (id, most) = (begun.id.clone(), state.limits().batches);
    let is_begun = batches.on_disk(move |store| store.begin(&begun, most)).await?;
    if !is_begun {
        let message =
            format!("{most} batches have not ended yet, which is the most; wait for one, or cancel it");
        return Err(ApiError::overloaded(message));
    }
    batches.notify();
    Ok(Json((&look_up(&state, &id).await?).into()))
}

/// The query of the list of batches.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listing {
    after: Option<String>,
    limit: Option<usize>,
}

/// `GET /v1/batches`.
pub(crate) async fn list(
    state: Session,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Page<Shown>>, ApiError> {
    let Query(listing) = listing.map_err(|error| ApiError::malformed(error.body_text()))?;
    let limit = within(listing.limit, 100)?.unwrap_or(20);
    let (tenant, after) = (state.tenant_name().map(str::to_owned), listing.after.clone());
    let found = state
        .batches()?
        .on_disk(move |store| store.batches(tenant.as_deref(), after.as_deref(), limit + 1));
    let Some(mut found) = found.await? else {
        let after = listing.after.unwrap_or_default();
        return Err(ApiError::invalid(
            "after",
            format!("`after`: there is no batch `{after}`"),
        ));
    };
    let has_more = found.len() > limit;
    found.truncate(limit);
    let found = found.iter().map(Shown::from).collect();
    Ok(Json(Page::new(found, |batch: &Shown| &batch.id, has_more)))
}

/// `GET /v1/batches/{id}`.
pub(crate) async fn get(state: Session, Path(id): Path<String>) -> Result<Json<Shown>, ApiError> {
    Ok(Json((&look_up(&state, &id).await?).into()))
}

/// `POST /v1/batches/{id}/cancel`.
pub(crate) async fn cancel(state: Session, Path(id): Path<String>) -> Result<Json<Shown>, ApiError> {
    look_up(&state, &id).await?;
    let batches = state.batches()?;
    let of = id.clone();
    let now = seconds(SystemTime::now());
    let from = [Status::Validating, Status::InProgress];
    let advanced = batches.on_disk(move |store| store.advance(&of, &from, Status::Cancelling, now));
    if advanced.await? {
        batches.notify();
    }
    let batch = look_up(&state, &id).await?;
    match batch.status {
        // Cancelling a batch twice is no error.
        Status::Cancelling | Status::Cancelled => Ok(Json((&batch).into())),
        status => Err(ApiError::Conflict(format!(
            "batch `{id}` is {} and cannot be cancelled any more",
            status.as_str()
        ))),
    }
}

/// The batch with this id, if it belongs to the caller.
async fn look_up(state: &Session, id: &str) -> Result<Batch, ApiError> {
    let of = id.to_owned();
    let batch = state.batches()?.on_disk(move |store| store.batch(&of)).await?;
    batch
        .filter(|batch| batch.begun.tenant.as_deref() == state.tenant_name())
        .ok_or_else(|| ApiError::NotFound(format!("there is no batch `{id}`")))
}

/// A batch. Times are in seconds since 1970.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Shown {
    id: String,
    object: &'static str,
    /// The route that its lines ask.
    endpoint: String,
    errors: Option<Errors>,
    input_file_id: String,
    completion_window: &'static str,
    /// `validating`, `failed`, `in_progress`, `finalizing`, `completed`, `expired`, `cancelling` or
    /// `cancelled`.
    status: &'static str,
    /// The file of its answers, if there are any.
    output_file_id: Option<String>,
    /// The file of what was not answered, if there is anything.
    error_file_id: Option<String>,
    created_at: u64,
    in_progress_at: Option<u64>,
    expires_at: u64,
    finalizing_at: Option<u64>,
    completed_at: Option<u64>,
    failed_at: Option<u64>,
    expired_at: Option<u64>,
    cancelling_at: Option<u64>,
    cancelled_at: Option<u64>,
    request_counts: Counts,
    metadata: Option<BTreeMap<String, String>>,
}

/// What is wrong with its file.
#[derive(Debug, Serialize, JsonSchema)]
struct Errors {
    object: &'static str,
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    data: Vec<Problem>,
}

/// Lines of a batch.
#[derive(Debug, Serialize, JsonSchema)]
struct Counts {
    total: u64,
    completed: u64,
    failed: u64,
}

impl From<&Batch> for Shown {
    fn from(batch: &Batch) -> Self {
        let begun = &batch.begun;
        let at = |status: Status| batch.times.get(status.as_str()).copied();
        Self {
            id: begun.id.clone(),
            object: "batch",
            endpoint: begun.endpoint.clone(),
            errors: (!batch.problems.is_empty()).then(|| Errors {
                object: "list",
                data: batch.problems.clone(),
            }),
            input_file_id: begun.input.clone(),
            completion_window: WINDOW.0,
            status: batch.status.as_str(),
            output_file_id: batch.output.clone(),
            error_file_id: batch.errors.clone(),
            created_at: begun.created,
            in_progress_at: at(Status::InProgress),
            expires_at: begun.expires,
            finalizing_at: at(Status::Finalizing),
            completed_at: at(Status::Completed),
            failed_at: at(Status::Failed),
            expired_at: at(Status::Expired),
            cancelling_at: at(Status::Cancelling),
            cancelled_at: at(Status::Cancelled),
            request_counts: Counts {
                total: batch.counts.total,
                completed: batch.counts.completed,
                failed: batch.counts.failed,
            },
            metadata: (!begun.metadata.is_empty()).then(|| begun.metadata.clone()),
        }
    }
}
