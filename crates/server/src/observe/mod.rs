//! Observability: metrics for Prometheus, traces, and prompts in the log.

pub(crate) mod metrics;
pub(crate) mod telemetry;
