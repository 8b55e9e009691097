//! When requests are sent, in a closed or an open loop, and one request from start to end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use multigraft_api::sse::Events;
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    arguments::Mode,
    client::Client,
    dialect::Dialect,
    record::{Failure, Record},
    traffic::{PlannedRequest, Traffic},
};

/// The server that requests go to.
#[derive(Debug)]
pub struct Target {
    /// Its client.
    pub client: Client,
    /// Its API, with the names of its base and adapters.
    pub dialect: Dialect,
}

/// When to send requests, and when to stop.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Closed or open loop.
    pub mode: Mode,
    /// Closed loop: how many clients there are, each with one request at a time.
    pub clients: usize,
    /// The most requests to send.
    pub requests: usize,
    /// After this time no new requests are sent.
    pub duration: Option<Duration>,
}

/// The requests that are still to be sent, shared by the clients.
struct Remaining {
    traffic: Traffic,
    requests: usize,
    begin: Instant,
    duration: Option<Duration>,
}

impl Remaining {
    fn next(&mut self) -> Option<PlannedRequest> {
        let is_over = self.duration.is_some_and(|limit| self.begin.elapsed() >= limit);
        if self.requests == 0 || is_over {
            return None;
        }
        self.requests -= 1;
        Some(self.traffic.next())
    }
}

/// Runs a plan. Returns the records in the order in which the requests ended, and the traffic,
/// which continues after the requests that were sent.
///
/// # Errors
/// If a task of the generator itself fails; failed requests are records.
pub async fn run(target: &Arc<Target>, mut traffic: Traffic, plan: Plan) -> Result<(Vec<Record>, Traffic)> {
    traffic.begin();
    let remaining = Remaining {
        traffic,
        requests: plan.requests,
        begin: Instant::now(),
        duration: plan.duration,
    };
    match plan.mode {
        Mode::Closed => closed_loop(target, remaining, plan.clients).await,
        Mode::Open => open_loop(target, remaining).await,
    }
}

async fn closed_loop(
    target: &Arc<Target>,
    remaining: Remaining,
    clients: usize,
) -> Result<(Vec<Record>, Traffic)> {
    let begin = remaining.begin;
    let remaining = Arc::new(Mutex::new(remaining));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (target, remaining) = (Arc::clone(target), Arc::clone(&remaining));
        tasks.spawn(async move {
            let mut records = Vec::new();
            loop {
                let next = remaining.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(planned) = next else { return records };
                records.push(send(&target, &planned, begin, begin.elapsed()).await);
            }
        });
    }
    let mut records = Vec::new();
    while let Some(of_one_client) = tasks.join_next().await {
        records.extend(of_one_client.context("a client of the load generator failed")?);
    }
    records.sort_by_key(|record| record.end);
    let remaining = Arc::into_inner(remaining).context("a client of the load generator has not ended")?;
    let remaining = remaining.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((records, remaining.traffic))
}

async fn open_loop(target: &Arc<Target>, mut remaining: Remaining) -> Result<(Vec<Record>, Traffic)> {
    let begin = remaining.begin;
    let mut tasks = JoinSet::new();
    while let Some(planned) = remaining.next() {
        if remaining.duration.is_some_and(|limit| planned.due >= limit) {
            break;
        }
        sleep_until((begin + planned.due).into()).await;
        let target = Arc::clone(target);
        // Timed from when the request was due: a generator that lags must not make the server look
        // faster.
        tasks.spawn(async move { send(&target, &planned, begin, planned.due).await });
    }
    let mut records = Vec::new();
    while let Some(record) = tasks.join_next().await {
        records.push(record.context("a request of the load generator failed")?);
    }
    records.sort_by_key(|record| record.end);
    Ok((records, remaining.traffic))
}

/// Sends one request and reads its answer to the end. `begin` is the start of the run, from which
/// all times of the record count; `sent` is when the request counts as sent.
pub async fn send(target: &Target, planned: &PlannedRequest, begin: Instant, sent: Duration) -> Record {
    let mut record = Record {
        adapter: planned.adapter,
        sent,
        first: None,
        last: None,
        end: sent,
        gaps: Vec::with_capacity(planned.output_tokens),
        prompt_tokens: None,
        output_tokens: 0,
        wanted: planned.output_tokens,
        failure: None,
    };
    record.failure = read_answer(target, planned, begin, &mut record).await.err();
    record.end = begin.elapsed();
    record
}

async fn read_answer(
    target: &Target,
    planned: &PlannedRequest,
    begin: Instant,
    record: &mut Record,
) -> Result<(), Failure> {
    let Target { client, dialect } = target;
    let body = dialect.body(&planned.prompt, planned.adapter, planned.output_tokens);
    let mut answer = client.post(dialect.path(), body).await?;
    let mut events = Events::default();
    let (mut token_events, mut counted_by_server) = (0, None);
    while let Some((part, arrived)) = answer.next().await? {
        let arrived = arrived.saturating_duration_since(begin);
        events.push(&part);
        while let Some(event) = events.next_event() {
            let event = dialect.parse_event(event.data)?;
            if event.has_token {
                token_events += 1;
                if let Some(last) = record.last.replace(arrived) {
                    record.gaps.push((arrived - last).as_secs_f64());
                } else {
                    record.first = Some(arrived);
                }
            }
            record.prompt_tokens = event.prompt_tokens.or(record.prompt_tokens);
            counted_by_server = event.output_tokens.or(counted_by_server);
            record.output_tokens = counted_by_server.unwrap_or(token_events);
            if event.is_end {
                return Ok(());
            }
        }
    }
    Err(Failure::Broken("it ended before it was complete".to_owned()))
}
