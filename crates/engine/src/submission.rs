//! Commands that the handles of an engine send to its worker.

use std::collections::HashSet;
use std::time::Instant;

use tokio::sync::oneshot::Sender;

use crate::client::Client;
use crate::event::RequestId;
use crate::fair::ShareId;
use crate::request::Request;
use crate::waiting::Permit;

/// A command to the worker.
pub(crate) enum Command {
    Submit(Box<Submission>),
    /// Give back idle KV memory that an adapter wants of the budget.
    MakeRoom,
    /// Cancel these requests with `reason`, and send to `done` when their blocks and adapters are
    /// free.
    Cancel {
        requests: HashSet<RequestId>,
        reason: String,
        done: Sender<()>,
    },
    /// End when all accepted requests are done.
    Drain,
    /// Fail all requests and end.
    Abort,
}

/// An accepted request.
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
