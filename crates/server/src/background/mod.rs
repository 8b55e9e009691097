//! Background tasks: batches, the adapters file, the watchdog.

pub(crate) mod batches;
pub(crate) mod reconcile;
pub(crate) mod watchdog;
