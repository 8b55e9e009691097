//! What a server holds when it is idle.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use super::server::ServerProcess;
use multigraft_loadgen::client::Client;
use multigraft_loadgen::table::Table;

/// The share by which resident memory may grow: the allocator does not use the same pages every
/// time.
const MAX_GROWTH: f64 = 0.02;
/// How long cancelled requests may take to end.
const IDLE_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// The resources that an idle server holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct IdleState {
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Open file handles.
    pub handles: u64,
    /// KV blocks that sequences hold; those of the prefix cache do not count.
    pub blocks: u64,
    /// Running sequences.
    pub running: u64,
    /// Waiting and preempted sequences.
    pub waiting: u64,
    /// Adapters in slots of the engine.
    pub resident_adapters: u64,
}

impl IdleState {
    /// Waits until no requests run, then some seconds more, and measures.
    pub(crate) async fn wait(server: &ServerProcess, client: &Client) -> Result<Self> {
        let begin = Instant::now();
        loop {
            let state = Self::now(server, client).await?;
            if (state.running, state.waiting) == (0, 0) || begin.elapsed() > IDLE_WITHIN {
                break;
            }
            sleep(POLL).await;
        }
        let resident = server.resident_when_idle().await?;
        // Before the next request, whose connection is a file handle.
        let handles = server.handles()?;
        Ok(Self {
            resident,
            handles,
            ..Self::now(server, client).await?
        })
    }

    async fn now(server: &ServerProcess, client: &Client) -> Result<Self> {
        let stats = client.get("/stats").await?;
        let figure = |name: &str| {
            stats[name]
                .as_u64()
                .with_context(|| format!("/stats has no {name}"))
        };
        Ok(Self {
            resident: server.resident()?,
            handles: server.handles()?,
            blocks: figure("kv_blocks_used")?,
            running: figure("running")?,
            waiting: figure("waiting")? + figure("preempted")?,
            resident_adapters: figure("resident_adapters")?,
        })
    }
}

/// A table of the resources after the warm-up (in a column with the heading `when`) and at the end,
/// and whether none of them grew. Resident memory may grow by `slack` bytes at least.
pub(crate) fn compare(before: IdleState, after: IdleState, when: &'static str, slack: u64) -> (Table, bool) {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let most = ((before.resident as f64 * MAX_GROWTH) as u64).max(slack);
    let growth = after.resident as f64 / before.resident as f64 - 1.0;
    let mut table = Table::new(["when idle", when, "at the end", "limit", ""]);
    let mut good = true;
    let mut row = |what: &str, before: String, after: String, most: String, holds: bool| {
        good &= holds;
        let verdict = if holds { "" } else { "LOST" };
        table.row([what.to_owned(), before, after, most, verdict.to_owned()]);
    };
    row(
        "resident memory",
        mib(before.resident),
        format!("{} ({:+.2} %)", mib(after.resident), 100.0 * growth),
        mib(before.resident + most),
        after.resident <= before.resident + most,
    );
    for (what, before, after, most) in [
        ("open file handles", before.handles, after.handles, before.handles),
        ("KV blocks in use", before.blocks, after.blocks, 0),
        ("running sequences", before.running, after.running, 0),
        ("waiting sequences", before.waiting, after.waiting, 0),
        (
            "adapters in the engine",
            before.resident_adapters,
            after.resident_adapters,
            before.resident_adapters,
        ),
    ] {
        row(
            what,
            before.to_string(),
            after.to_string(),
            most.to_string(),
            after <= most,
        );
    }
    (table, good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: IdleState = IdleState {
        resident: 1000,
        handles: 12,
        blocks: 0,
        running: 0,
        waiting: 0,
        resident_adapters: 5,
    };

    #[test]
    fn equal_or_fewer_resources_are_fine() {
        let after = IdleState {
            resident: 1020,
            handles: 11,
            resident_adapters: 4,
            ..IDLE
        };
        assert!(compare(IDLE, IDLE, "before", 0).1);
        assert!(compare(IDLE, after, "before", 0).1);
    }

    #[test]
    fn memory_may_grow_by_the_slack() {
        let after = IdleState {
            resident: 1050,
            ..IDLE
        };
        assert!(compare(IDLE, after, "before", 50).1);
        assert!(!compare(IDLE, after, "before", 49).1);
    }

    #[test]
    fn each_lost_resource_is_found() {
        for after in [
            IdleState {
                resident: 1021,
                ..IDLE
            },
            IdleState { handles: 13, ..IDLE },
            IdleState { blocks: 1, ..IDLE },
            IdleState { running: 1, ..IDLE },
            IdleState { waiting: 1, ..IDLE },
            IdleState {
                resident_adapters: 6,
                ..IDLE
            },
        ] {
            let (table, good) = compare(IDLE, after, "before", 0);
            assert!(!good, "{after:?}");
            assert_eq!(table.to_string().matches("LOST").count(), 1, "{table}");
        }
    }
}
