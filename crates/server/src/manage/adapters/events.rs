//! `GET /v1/adapters/events`: changes of adapters as server-sent events.
//!
//! A reader gets the difference between two snapshots of the registry. A slow reader therefore
//! misses intermediate states but never the last one, and no queue grows for it.

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

/// Shortest interval between two snapshots.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest interval between two snapshots.
const TICK: Duration = Duration::from_secs(5);

/// Becomes true when the server stops. Endless streams end then.
pub(crate) type Stopping = watch::Receiver<bool>;

/// A reader of the events.
struct Watching {
    /// Determines which adapters the reader may see.
    session: Session,
    changes: watch::Receiver<()>,
    stopping: Option<Stopping>,
    /// The last snapshot.
    known: HashMap<String, Status>,
    ready: VecDeque<AdapterEvent>,
    /// When the last snapshot was taken.
    looked: Instant,
}

impl Watching {
    fn new(session: Session, stopping: Option<Stopping>) -> Self {
        // Subscribed before the first snapshot, so that no change in between is missed.
        let changes = session.adapters().changes();
        let statuses = session.adapters().statuses();
        let is_in_progress = |status: &&Status| matches!(status.phase, Phase::Fetching(_) | Phase::Loading);
        let ready = statuses
            .iter()
            .filter(is_in_progress)
            .cloned()
            .map(convert::event);
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
                    // An error means that the sender was dropped, which is a stop too.
                    Some(stopping) => drop(stopping.wait_for(|stop| *stop).await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                // Some changes notify nobody: a failure expires, a key expires.
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

/// All changes of the adapters that the caller may see, until the server stops.
pub(super) fn respond(session: &Session, stopping: Option<Stopping>) -> Response {
    let watching = Watching::new(session.clone(), stopping);
    let events = stream::unfold(watching, async |mut watching| {
        let change = watching.next().await?;
        Some((
            Ok::<_, Infallible>(with_data(sse::Event::default(), &change)),
            watching,
        ))
    });
    let sse = Sse::new(Box::pin(events)).keep_alive(KeepAlive::default());
    sse.into_response()
}

/// The changes of `name` until `added` completes, then the adapter as the event `added`, or the
/// error as the event `error`.
pub(super) fn respond_until<A: Serialize>(
    session: &Session,
    name: String,
    added: impl Future<Output = Result<A, ApiError>> + Send + 'static,
) -> Response {
    let watching = Watching::new(session.clone(), None);
    let state = Some((watching, Box::pin(added)));
    let events = stream::unfold(state, move |state| {
        let name = name.clone();
        async move {
            let (mut watching, mut added) = state?;
            let (event, state) = loop {
                tokio::select! {
                    added = &mut added => {
                        let event = match added {
                            Ok(adapter) => with_data(sse::Event::default().event("added"), &adapter),
                            Err(error) => with_data(
                                sse::Event::default().event("error"),
                                &Dialect::OpenAi.error_body(&error),
                            ),
                        };
                        break (event, None);
                    }
                    // The changes end with the registry, and then `added` ends too.
                    Some(change) = watching.next() => {
                        if change.name == name {
                            break (with_data(sse::Event::default(), &change), Some((watching, added)));
                        }
                    }
                }
            };
            Some((Ok::<_, Infallible>(event), state))
        }
    });
    let sse = Sse::new(Box::pin(events)).keep_alive(KeepAlive::default());
    sse.into_response()
}

fn with_data(event: sse::Event, data: &impl Serialize) -> sse::Event {
    // Serialisation cannot fail: the types have string keys. JSON has no raw line breaks.
    event.data(serde_json::to_string(data).unwrap_or_default())
}
