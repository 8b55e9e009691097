//! Sending requests: closed loop or open loop, and one request from its sending to its end.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{task::JoinSet, time::sleep_until};

use super::{
    super::arguments::Mode,
    dialect::Dialect,
    events::Lines,
    http::Server,
    record::{Failure, Record},
    traffic::{Planned, Traffic},
};

/// Whom requests go to.
#[derive(Debug)]
pub(in crate::commands::bench) struct Target {
    pub server: Server,
    pub dialect: Dialect,
}

/// When to send, and when to stop.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands::bench) struct Plan {
    pub mode: Mode,
    pub clients: usize,
    /// The most requests.
    pub requests: usize,
    /// No new requests after this.
    pub duration: Option<Duration>,
}

/// The requests that are left to send, shared by the clients.
struct Source {
    traffic: Traffic,
    left: usize,
    begin: Instant,
    duration: Option<Duration>,
}

impl Source {
    fn next(&mut self) -> Option<Planned> {
        if self.left == 0 || self.duration.is_some_and(|limit| self.begin.elapsed() >= limit) {
            return None;
        }
        self.left -= 1;
        Some(self.traffic.next())
    }
}

/// Runs a plan and returns its records in the order of their ends, and the traffic as far as it was
/// used.
pub(in crate::commands::bench) async fn run(
    target: &Arc<Target>,
    mut traffic: Traffic,
    plan: Plan,
) -> Result<(Vec<Record>, Traffic)> {
    traffic.begin();
    let begin = Instant::now();
    let source = Source {
        traffic,
        left: plan.requests,
        begin,
        duration: plan.duration,
    };
    match plan.mode {
        Mode::Closed => closed(target, source, plan.clients).await,
        Mode::Open => open(target, source).await,
    }
}

async fn closed(target: &Arc<Target>, source: Source, clients: usize) -> Result<(Vec<Record>, Traffic)> {
    let begin = source.begin;
    let source = Arc::new(Mutex::new(source));
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let (target, source) = (Arc::clone(target), Arc::clone(&source));
        tasks.spawn(async move {
            let mut records = Vec::new();
            loop {
                let next = source.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(planned) = next else { return records };
                records.push(request(&target, &planned, begin, begin.elapsed()).await);
            }
        });
    }
    let mut records = Vec::new();
    while let Some(of_one_client) = tasks.join_next().await {
        records.extend(of_one_client.context("a client of the load generator failed")?);
    }
    records.sort_by_key(|record| record.end);
    let source = Arc::into_inner(source).context("a client of the load generator goes on")?;
    Ok((
        records,
        source
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .traffic,
    ))
}

async fn open(target: &Arc<Target>, mut source: Source) -> Result<(Vec<Record>, Traffic)> {
    let begin = source.begin;
    let mut tasks = JoinSet::new();
    while let Some(planned) = source.next() {
        if source.duration.is_some_and(|limit| planned.due >= limit) {
            break;
        }
        sleep_until((begin + planned.due).into()).await;
        let target = Arc::clone(target);
        // From when it was due: a generator that lags must not make the server look faster.
        tasks.spawn(async move { request(&target, &planned, begin, planned.due).await });
    }
    let mut records = Vec::new();
    while let Some(record) = tasks.join_next().await {
        records.push(record.context("a request of the load generator failed")?);
    }
    records.sort_by_key(|record| record.end);
    Ok((records, source.traffic))
}

/// Sends one request and follows its answer to the end.
pub(in crate::commands::bench) async fn request(
    target: &Target,
    planned: &Planned,
    begin: Instant,
    sent: Duration,
) -> Record {
    let mut record = Record {
        adapter: planned.adapter,
        sent,
        first: None,
        last: None,
        end: sent,
        gaps: Vec::with_capacity(planned.output),
        prompt_tokens: None,
        output_tokens: 0,
        wanted: planned.output,
        failure: None,
    };
    record.failure = follow(target, planned, begin, &mut record).await.err();
    record.end = begin.elapsed();
    record
}

async fn follow(
    target: &Target,
    planned: &Planned,
    begin: Instant,
    record: &mut Record,
) -> Result<(), Failure> {
    let Target { server, dialect } = target;
    let body = dialect.body(&planned.prompt, planned.adapter, planned.output);
    let mut parts = server.post(dialect.path(), body).await?;
    let mut lines = Lines::default();
    let (mut chunks, mut counted) = (0, None);
    while let Some((part, came)) = parts.next().await? {
        let came = came.saturating_duration_since(begin);
        lines.push(&part);
        while let Some(data) = lines.next() {
            let said = dialect.read(data)?;
            if said.token {
                chunks += 1;
                if let Some(last) = record.last.replace(came) {
                    record.gaps.push((came - last).as_secs_f64());
                } else {
                    record.first = Some(came);
                }
            }
            record.prompt_tokens = said.prompt_tokens.or(record.prompt_tokens);
            counted = said.output_tokens.or(counted);
            record.output_tokens = counted.unwrap_or(chunks);
            if said.done {
                return Ok(());
            }
        }
    }
    Err(Failure::Broken("it ended before it was complete".to_owned()))
}
