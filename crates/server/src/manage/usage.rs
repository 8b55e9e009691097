//! `GET /v1/usage`: usage reports, with a resolution of an hour.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    extract::{Query, rejection::QueryRejection},
};
use multigraft_access::{AccessError, By, UsageQuery};
use multigraft_api::UsageReport;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use crate::{
    caller::session::Session,
    http::{error::ApiError, id::seconds},
};

/// Largest number of rows in a report.
const MOST_ROWS: usize = 10_000;
/// Default length of the period, which ends at `to`.
const LATELY: Duration = Duration::from_secs(30 * 24 * 3600);

/// The query of a report.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Period {
    from: Option<String>,
    to: Option<String>,
    by: Option<String>,
}

/// `GET /v1/usage?from=&to=&by=`: the usage of all keys for admins, else of the caller's key.
pub(crate) async fn report(
    session: Session,
    period: Result<Query<Period>, QueryRejection>,
) -> Result<Json<UsageReport>, ApiError> {
    let Query(period) = period.map_err(|error| ApiError::malformed(error.body_text()))?;
    let time = |field, text: Option<String>, default| match text {
        None => Ok(default),
        Some(text) => UsageQuery::time(&text)
            .map_err(|problem| ApiError::invalid(field, format!("`{field}`: {problem}"))),
    };
    let to = time("to", period.to, SystemTime::now())?;
    let from = time(
        "from",
        period.from,
        to.checked_sub(LATELY).unwrap_or(SystemTime::UNIX_EPOCH),
    )?;
    let by = period.by.as_deref().unwrap_or("adapter");
    let by: By = by
        .parse()
        .map_err(|problem| ApiError::invalid("by", format!("`by`: {problem}")))?;
    let Some(access) = session.access().cloned() else {
        let message =
            "this server does not record usage, because it has no data folder; start it with `--data FOLDER`";
        return Err(ApiError::NoAdapter(message.to_owned()));
    };
    let query = UsageQuery {
        from,
        to,
        by,
        key: session.limited().map(|key| key.id.clone()),
    };
    let answered = spawn_blocking(move || {
        let now = SystemTime::now();
        // Buffered records are written first, so that a client finds the usage of its last request.
        access.usage().save(now)?;
        access.report(&query, MOST_ROWS)
    });
    let answered = answered
        .await
        .map_err(|_| ApiError::Failed("an internal error; the server's log says more".to_owned()))?;
    let data = answered.map_err(|error| match error {
        AccessError::Invalid(message) => ApiError::malformed(message),
        error => ApiError::Failed(error.to_string()),
    })?;
    Ok(Json(UsageReport {
        from: seconds(from),
        to: seconds(to),
        data,
    }))
}
