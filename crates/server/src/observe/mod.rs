//! What those who run the server see of it: counters for Prometheus, traces, prompts in the log.

pub(crate) mod metrics;
pub(crate) mod telemetry;
