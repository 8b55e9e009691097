//! `GET /v1/adapters/events`: what becomes of adapters, as it happens.
//!
//! Whoever reads gets the difference between what the registry said last and what it says now. So
//! who reads slowly misses steps on the way, never where it ended, and nothing piles up for them.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    time::Duration,
};

use axum::response::{
    IntoResponse, Response,
    sse::{self, KeepAlive, Sse},
};
use futures_util::stream;
use multigraft_adapters::{Phase, Status};
use multigraft_api::AdapterEvent;
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::convert;
use crate::{
    caller::session::Session,
    http::{dialect::Dialect, error::ApiError},
};

/// Between two looks at all adapters, at least.
const PAUSE: Duration = Duration::from_millis(100);

/// Between two looks at most.
const TICK: Duration = Duration::from_secs(5);

/// Says when the server stops; streams that have no end of their own end then.
pub(crate) type Stopping = watch::Receiver<bool>;

/// One reader.
struct Watching {
    /// Says which adapters it may see.
    session: Session,
    changes: watch::Receiver<()>,
    stopping: Option<Stopping>,
    /// What was said last.
    known: HashMap<String, Status>,
    ready: VecDeque<AdapterEvent>,
    /// When all were looked at.
    looked: Instant,
}

impl Watching {
    fn new(session: Session, stopping: Option<Stopping>) -> Self {
        // Before the first look, so that nothing is missed between the two.
        let changes = session.adapters().changes();
        let statuses = session.adapters().statuses();
        let is_under_way = |status: &&Status| matches!(status.phase, Phase::Fetching(_) | Phase::Loading);
        let ready = statuses.iter().filter(is_under_way).cloned().map(convert::event);
        Self {
            ready: ready.collect(),
            known: statuses
                .into_iter()
                .map(|status| (status.name.clone(), status))
                .collect(),
            looked: Instant::now(),
            session,
            changes,
            stopping,
        }
    }

    /// The next change; `None` when the server stops.
    async fn next(&mut self) -> Option<AdapterEvent> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(change);
            }
            let stopping = async {
                match &mut self.stopping {
                    // An error means that the sender is gone, which is a stop as well.
                    Some(stopping) => drop(stopping.wait_for(|stop| *stop).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                // Some things end because time passes: what failed is forgotten, a key expires.
                () = sleep_until(self.looked + TICK) => {}
                () = stopping => return None,
            }
            sleep_until(self.looked + PAUSE).await;
            self.looked = Instant::now();
            self.session = self.session.renewed()?;
            self.compare();
        }
    }

    fn compare(&mut self) {
        let mut known = std::mem::take(&mut self.known);
        for status in self.session.adapters().statuses() {
            if known.remove(&status.name).as_ref() != Some(&status) {
                self.ready.push_back(convert::event(status.clone()));
            }
            self.known.insert(status.name.clone(), status);
        }
        self.ready.extend(known.into_keys().map(convert::removed));
    }
}

/// All changes of what the caller may see, until the server stops.
pub(super) fn respond(session: &Session, stopping: Option<Stopping>) -> Response {
    let watching = Watching::new(session.clone(), stopping);
    let events = stream::unfold(watching, async |mut watching| {
        let change = watching.next().await?;
        Some((
            Ok::<_, Infallible>(worded(sse::Event::default(), &change)),
            watching,
        ))
    });
    let sse = Sse::new(Box::pin(events)).keep_alive(KeepAlive::default());
    sse.into_response()
}

/// The changes of `name` until `added` is there; then its adapter as the event `added`, or its
/// error as the event `error`.
pub(super) fn respond_until<A: Serialize>(
    session: &Session,
    name: String,
    added: impl Future<Output = Result<A, ApiError>> + Send + 'static,
) -> Response {
    let watching = Watching::new(session.clone(), None);
    let under_way = Some((watching, Box::pin(added)));
    let events = stream::unfold(under_way, move |under_way| {
        let name = name.clone();
        async move {
            let (mut watching, mut added) = under_way?;
            let (event, under_way) = loop {
                tokio::select! {
                    added = &mut added => {
                        let event = match added {
                            Ok(adapter) => worded(sse::Event::default().event("added"), &adapter),
                            Err(error) => worded(
                                sse::Event::default().event("error"),
                                &Dialect::OpenAi.error_body(&error),
                            ),
                        };
                        break (event, None);
                    }
                    // Its end is that of the registry, and `added` hears of it too.
                    Some(change) = watching.next() => {
                        if change.name == name {
                            break (worded(sse::Event::default(), &change), Some((watching, added)));
                        }
                    }
                }
            };
            Some((Ok::<_, Infallible>(event), under_way))
        }
    });
    let sse = Sse::new(Box::pin(events)).keep_alive(KeepAlive::default());
    sse.into_response()
}

fn worded(event: sse::Event, data: &impl Serialize) -> sse::Event {
    // Our own types have string keys and no failing serialisers; JSON has no raw line breaks.
    event.data(serde_json::to_string(data).unwrap_or_default())
}
