//! Tells of a step that does not end.
//!
//! Requests are answered as long as the engine makes one step after the other. One that takes
//! longer than any model should need (a machine that swaps, a processor that was taken away, a bug)
//! is said in the log, by `/ready` and by a metric; it is not ended, as nothing can end a
//! computation from outside but a restart.

use std::time::Duration;

use multigraft_engine::CurrentStep;
use tokio::time::sleep;

use crate::state::{AppState, stuck::stuck};

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);

/// Logs when a step is stuck, and when it ended after all.
pub(crate) async fn watch(state: AppState) {
    let state = state.downgrade();
    let mut known: Option<CurrentStep> = None;
    loop {
        sleep(PERIOD).await;
        // It does not keep a server in memory that is gone.
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
                "a step of the engine does not end; no request is answered meanwhile"
            );
        }
        known = found;
    }
}
