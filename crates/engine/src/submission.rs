//! What the handles of an engine send to its worker.

use std::collections::HashSet;
use std::time::Instant;

use tokio::sync::oneshot::Sender;

use crate::client::Client;
use crate::event::RequestId;
use crate::fair::ShareId;
use crate::request::Request;
use crate::waiting::Permit;

/// What a handle asks of the worker.
pub(crate) enum Command {
    Submit(Box<Submission>),
    /// An adapter wants memory of the budget.
    MakeRoom,
    /// End these requests with an event that gives the reason, and answer when all that they held
    /// is free.
    Cancel {
        requests: HashSet<RequestId>,
        reason: String,
        done: Sender<()>,
    },
    /// End when everything accepted is done.
    Drain,
    /// End now.
    Abort,
}

/// A request that was accepted.
pub(crate) struct Submission {
    pub(crate) id: RequestId,
    pub(crate) request: Request,
    pub(crate) share: ShareId,
    pub(crate) seed: u64,
    pub(crate) client: Client,
    /// Its permit to wait.
    pub(crate) permit: Permit,
    pub(crate) submitted: Instant,
}
