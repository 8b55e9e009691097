//! Freed memory that the allocator keeps is returned to the system when the process is idle.

use std::time::Duration;

use multigraft_kernels::malloc::return_freed;
use rustix::time::{ClockId, clock_gettime};
use tokio::{task::spawn_blocking, time::sleep};

/// How often the process's CPU time is read.
const PERIOD: Duration = Duration::from_secs(1);
/// CPU time from which on a period counts as busy, and after which freed memory is worth returning.
const BUSY: Duration = Duration::from_millis(50);

/// Returns freed memory to the system after every busy time, for as long as the process runs. CPU
/// time tells when the process is busy, and not the engine's running sequences: requests that never
/// reach the engine leave the most freed memory.
pub(crate) async fn run() {
    let (mut before, mut returned_at) = (cpu_time(), Duration::ZERO);
    loop {
        sleep(PERIOD).await;
        let is_idle = cpu_time().saturating_sub(before) < BUSY;
        let has_worked = cpu_time().saturating_sub(returned_at) >= BUSY;
        if is_idle && has_worked && spawn_blocking(return_freed).await.is_ok() {
            returned_at = cpu_time();
        }
        before = cpu_time();
    }
}

/// The CPU time of this process so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
