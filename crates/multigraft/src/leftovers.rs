//! Memory that requests have freed and the allocator keeps. Once nobody is answered any more it goes back to the system.

use std::{fs, path::Path, sync::Arc, time::Duration};

use multigraft_model::return_freed;
use multigraft_server::AppState;
use tokio::{task::spawn_blocking, time::sleep};

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);
/// How much more memory than before is worth the milliseconds for which others wait that allocate.
const GROWTH: u64 = 1 << 20;

/// Looks after the process's memory for as long as it runs; nothing where the system does not say how much it is.
pub(crate) async fn give_back(state: Arc<AppState>) {
    let this = Path::new("/proc/self/status");
    let Some(mut before) = resident(this) else {
        return;
    };
    loop {
        sleep(PERIOD).await;
        let stats = state.engine.stats();
        if stats.running + stats.waiting + stats.preempted > 0 {
            continue;
        }
        let Some(now) = resident(this) else { return };
        before = before.min(now);
        if now - before >= GROWTH && spawn_blocking(return_freed).await.is_ok() {
            // What did not go back is in use, or was never freed.
            before = resident(this).unwrap_or(now);
        }
    }
}

/// The resident memory of the process whose `status` in `/proc` this is, in bytes.
pub(crate) fn resident(status: &Path) -> Option<u64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
