//! Memory that was freed and that the allocator keeps. Once there is nothing to do it goes back to
//! the system.

use std::{fs, path::Path, time::Duration};

use multigraft_kernels::malloc::return_freed;
use rustix::time::{ClockId, clock_gettime};
use tokio::{task::spawn_blocking, time::sleep};

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(1);
/// The processor time in a period from which on it was one of work, and that is worth giving back
/// what it left.
const WORK: Duration = Duration::from_millis(50);

/// Gives back what was freed after all work, for as long as the process runs. Work is told by
/// processor time: requests that never reach the engine leave the most.
pub(crate) async fn give_back() {
    let (mut before, mut given) = (worked(), Duration::ZERO);
    loop {
        sleep(PERIOD).await;
        let is_at_rest = worked().saturating_sub(before) < WORK;
        if is_at_rest && worked().saturating_sub(given) >= WORK && spawn_blocking(return_freed).await.is_ok()
        {
            given = worked();
        }
        before = worked();
    }
}

/// The processor time that the process has had.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// The resident memory of the process whose `status` in `/proc` this is, in bytes.
pub(crate) fn resident(status: &Path) -> Option<u64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
