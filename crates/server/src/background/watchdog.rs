//! The watchdog: reports an engine step that does not end.
//!
//! A step that takes longer than any model should need (the machine swaps, the CPU is throttled, a
//! bug) blocks all requests. It is reported in the log, by `/ready` and by a metric. Only a restart
//! can end it: a computation cannot be interrupted from outside.

use std::time::Duration;

use multigraft_engine::CurrentStep;
use tokio::time::sleep;

use crate::state::{AppState, stuck::stuck};

/// Interval between two checks.
const PERIOD: Duration = Duration::from_secs(1);

/// Logs when a step is stuck and when it has ended after all.
pub(crate) async fn watch(state: AppState) {
    let state = state.downgrade();
    let mut known: Option<CurrentStep> = None;
    loop {
        sleep(PERIOD).await;
        // The weak handle does not keep a stopped server in memory.
        let Some(state) = state.upgrade() else { return };
        let found = stuck(state.engine(), state.limits());
        if let Some(ended) = known.filter(|known| found.is_none_or(|found| found.began != known.began)) {
            tracing::warn!(within = ?ended.began.elapsed(), "the step that was stuck has ended");
        }
        if let Some(found) = found.filter(|found| known.is_none_or(|known| found.began != known.began)) {
            let CurrentStep {
                began,
                sequences,
                rows,
                adapters,
            } = found;
            tracing::error!(
                since = ?began.elapsed(),
                sequences,
                rows,
                adapters,
                "an engine step does not end; no request is answered until it does"
            );
        }
        known = found;
    }
}
