//! The batch runner.
//!
//! One task finds unfinished batches and starts a task for each. A batch's task reads the lines,
//! runs some of them concurrently, and writes each result when it arrives. All batches together run
//! as many lines as the engine runs sequences, first come, first served. Dropping the first task
//! drops all others; the next process runs the lines again that were in flight.

use std::{
    collections::HashMap,
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, header},
};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use multigraft_batches::{Batch, Line, Lines, Status, validate};
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};
use tower::ServiceExt as _;

use crate::{
    http::{caller::Caller, deadline::Background, error::ApiError, id::seconds},
    state::{AppState, batches::Batches},
};

/// Interval between two attempts to continue a failed batch, and between two purges of expired
/// files.
const INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait of a line that got a `Retry-After`, because limits may change meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Runs the batches of `state` through `routes` until `stopped` is true. Returns at once if the
/// server stores no batches.
pub async fn run(state: AppState, routes: Router, mut stopped: watch::Receiver<bool>) {
    let Some(batches) = state.batches().cloned() else {
        return;
    };
    let most = state.engine().limits().max_running;
    let runner = Runner {
        permits: Arc::new(Semaphore::new(most)),
        most,
        batches,
        routes,
        state,
        stopped: stopped.clone(),
    };
    tokio::select! {
        // An error means that the sender was dropped, which is a stop too.
        _ = stopped.wait_for(|&stop| stop) => {}
        () = runner.all() => {}
    }
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

#[derive(Clone)]
struct Runner {
    state: AppState,
    routes: Router,
    /// Whether the server shuts down. Lines that are refused for that reason are left for the next
    /// process.
    stopped: watch::Receiver<bool>,
    batches: Batches,
    /// One permit for each line in flight.
    permits: Arc<Semaphore>,
    /// Largest number of lines of one batch that run or wait for a permit.
    most: usize,
}

impl Runner {
    async fn all(&self) {
        let mut changed = self.batches.changes();
        let mut tasks = JoinSet::new();
        let mut running = HashMap::new();
        loop {
            let found = self
                .batches
                .on_disk(|store| {
                    store.purge(now())?;
                    store.unfinished()
                })
                .await;
            // `on_disk` logs errors; the next round tries again.
            for batch in found.unwrap_or_default() {
                let id = batch.begun.id.clone();
                if !running.values().any(|running| *running == id) {
                    let runner = self.clone();
                    let task = tasks.spawn(async move { runner.batch(batch).await });
                    running.insert(task.id(), id);
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                Some(ended) = tasks.join_next_with_id() => match ended {
                    Ok((task, ())) => {
                        running.remove(&task);
                    }
                    // A retry would panic again, so the batch waits for the next process.
                    Err(error) => {
                        let batch = running.get(&error.id());
                        tracing::error!(%error, ?batch, "the task of a batch panicked; the batch continues after the next start");
                    }
                },
                () = sleep(INTERVAL) => {}
            }
        }
    }

    /// Continues a batch, if possible to its end.
    async fn batch(&self, batch: Batch) {
        let id = batch.begun.id.clone();
        if let Err(error) = self.try_batch(batch).await {
            tracing::error!(batch = id, %error, "a batch failed to continue; it will be retried");
            sleep(INTERVAL).await;
        }
    }

    async fn try_batch(&self, batch: Batch) -> Result<(), ApiError> {
        let id = batch.begun.id.clone();
        let changed = self.batches.changes();
        let status = match batch.status {
            Status::Validating => self.validate(&batch).await?,
            status => status,
        };
        let status = match status {
            Status::InProgress => self.lines(&batch, changed).await?,
            status => status,
        };
        let to = match status {
            Status::Finalizing => Status::Completed,
            Status::Cancelling => Status::Cancelled,
            Status::InProgress => Status::Expired,
            // The batch has ended.
            _ => return Ok(()),
        };
        let limits = self.state.limits().lines();
        let finished = self.batches.on_disk(move |store| {
            // With the present counts.
            let batch = store.batch(&id)?.unwrap_or(batch);
            store.finish(&batch, to, limits, now())
        });
        finished.await
    }

    /// Validates the input file of a batch. Returns the status of the batch after that.
    async fn validate(&self, batch: &Batch) -> Result<Status, ApiError> {
        let begun = batch.begun.clone();
        let limits = self.state.limits().lines();
        let checked = self.batches.on_disk(move |store| {
            let path = store.content(&begun.input);
            let checked = validate(&path, &begun.endpoint, limits);
            match checked.map_err(|source| multigraft_batches::StoreError::File { path, source })? {
                Ok(total) => store.validated(&begun.id, total, now())?,
                Err(problems) => store.refused(&begun.id, &problems, now())?,
            }
            store.batch(&begun.id)
        });
        Ok(checked.await?.map_or(Status::Failed, |batch| batch.status))
    }

    /// Runs the lines that have no result. Returns the status of the batch after that: `InProgress`
    /// if it has expired.
    async fn lines(&self, batch: &Batch, mut changed: watch::Receiver<()>) -> Result<Status, ApiError> {
        let begun = &batch.begun;
        let left = Duration::from_secs(begun.expires.saturating_sub(now()));
        if left.is_zero() {
            return Ok(Status::InProgress);
        }
        let deadline = Instant::now() + left;
        let mut unread = Some(Unread::open(self, batch).await?);
        let mut running = FuturesUnordered::new();
        loop {
            if now() >= begun.expires {
                return Ok(Status::InProgress);
            }
            if let Some(lines) = unread.take_if(|_| running.len() < self.most) {
                let (lines, line) = lines.next(self, batch).await?;
                if let Some(line) = line {
                    running.push(self.line(batch, line));
                    unread = Some(lines);
                }
                continue;
            }
            tokio::select! {
                biased;
                () = sleep_until(deadline) => {}
                _ = changed.changed() => {
                    if self.status(&begun.id).await? == Status::Cancelling {
                        return Ok(Status::Cancelling);
                    }
                }
                ended = running.next() => match ended {
                    Some((number, answered, text)) => {
                        let id = begun.id.clone();
                        self.batches.on_disk(move |store| store.put(&id, number, answered, &text)).await?;
                    }
                    None => break,
                },
            }
        }
        let id = begun.id.clone();
        let ended = self
            .batches
            .on_disk(move |store| store.advance(&id, &[Status::InProgress], Status::Finalizing, now()));
        ended.await?;
        self.status(&begun.id).await
    }

    async fn status(&self, id: &str) -> Result<Status, ApiError> {
        let id = id.to_owned();
        let batch = self.batches.on_disk(move |store| store.batch(&id)).await?;
        Ok(batch.map_or(Status::Cancelled, |batch| batch.status))
    }

    /// Runs a line until it has a result. Returns its number, whether it succeeded, and the line
    /// for the output or error file.
    async fn line(&self, batch: &Batch, line: Line) -> (u64, bool, String) {
        let begun = &batch.begun;
        let stem = begun.id.strip_prefix("batch_").unwrap_or(&begun.id);
        let id = format!("batch_req_{stem}_{}", line.number);
        let body = Value::Object(line.body).to_string();
        let (answered, response, error) = loop {
            let Ok(permit) = self.permits.acquire().await else {
                // The semaphore is never closed.
                break pending().await;
            };
            let Some(caller) = Caller::of_key(self.state.access(), begun.key.as_deref()) else {
                let message = "The key that made this batch is not valid any more.";
                break (
                    false,
                    Value::Null,
                    json!({"code": "invalid_api_key", "message": message}),
                );
            };
            let request = Request::post(&begun.endpoint)
                .header(header::CONTENT_TYPE, "application/json")
                .extension(caller)
                .extension(Background)
                .body(Body::from(body.clone()));
            let response = match request {
                Ok(request) => self.routes.clone().oneshot(request).await,
                // Cannot happen: the endpoint is a path of the table of routes.
                Err(error) => {
                    let error = json!({"code": "invalid_request", "message": error.to_string()});
                    break (false, Value::Null, error);
                }
            };
            let Ok(response) = response;
            let (head, body) = response.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
            let ends = *self.stopped.borrow() || self.state.engine().is_stopped();
            if !head.status.is_success() && ends {
                // The next process runs the line.
                break pending().await;
            }
            if let Some(wait) = retry_after(&head.headers) {
                drop(permit);
                sleep(wait).await;
                continue;
            }
            let body: Value = serde_json::from_slice(&body)
                .unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
            let request_id = head.headers.get("x-request-id").and_then(|id| id.to_str().ok());
            let response = json!({
                "status_code": head.status.as_u16(),
                "request_id": request_id.unwrap_or(&id),
                "body": body,
            });
            break (head.status.is_success(), response, Value::Null);
        };
        let result = json!({"id": id, "custom_id": line.custom_id, "response": response, "error": error});
        (line.number, answered, result.to_string())
    }
}

/// How long to wait before a retry, if a retry can succeed before the batch expires.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    if headers
        .get("x-should-retry")
        .is_some_and(|again| again == "false")
    {
        return None;
    }
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// The lines without a result that have not been read yet.
struct Unread {
    lines: Lines,
    done: std::collections::HashSet<u64>,
}

impl Unread {
    async fn open(runner: &Runner, batch: &Batch) -> Result<Self, ApiError> {
        let (id, input) = (batch.begun.id.clone(), batch.begun.input.clone());
        let limits = runner.state.limits().lines();
        let opened = runner.batches.on_disk(move |store| {
            let path = store.content(&input);
            let lines = Lines::open(&path, limits);
            let lines = lines.map_err(|source| multigraft_batches::StoreError::File { path, source })?;
            let done = store.done(&id)?;
            Ok(Self { lines, done })
        });
        opened.await
    }

    /// The next line; `None` at the end of the file.
    async fn next(mut self, runner: &Runner, batch: &Batch) -> Result<(Self, Option<Line>), ApiError> {
        let endpoint = batch.begun.endpoint.clone();
        let limits = runner.state.limits().lines();
        let read = spawn_blocking(move || {
            let next = self.lines.find(|line| match line {
                Ok((number, _)) => !self.done.contains(number),
                Err(_) => true,
            });
            let line = next.map(|next| {
                let (number, bytes) = next.map_err(|error| ApiError::Failed(error.to_string()))?;
                // The line was valid when the file was validated.
                Line::parse(number, &bytes, &endpoint, limits)
                    .map_err(|problem| ApiError::Failed(format!("line {number}: {}", problem.message)))
            });
            line.transpose().map(|line| (self, line))
        });
        read.await
            .unwrap_or_else(|error| Err(ApiError::Failed(error.to_string())))
    }
}
