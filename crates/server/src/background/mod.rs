//! What goes on without a request: batches, the file of adapters, the watch over steps.

pub(crate) mod batches;
pub(crate) mod reconcile;
pub(crate) mod watchdog;
