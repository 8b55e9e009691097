//! What a server holds when nobody asks anything of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use multigraft_loadgen::client::Client;
use multigraft_loadgen::table::Table;
use super::server::ServerProcess;

/// Resident memory may grow by this part of itself: the allocator's pages are never quite the same.
const GROWTH: f64 = 0.02;
/// How long requests that nobody waits for any more may take to end.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// The server's figures at rest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct IdleState {
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Open file handles.
    pub handles: u64,
    /// Blocks of keys and values that are held by sequences; those of the prefix cache are not
    /// among them.
    pub blocks: u64,
    pub running: u64,
    /// Those that wait, and those that gave way to others.
    pub waiting: u64,
    /// Adapters in the engine's slots.
    pub resident_adapters: u64,
}

impl IdleState {
    /// Waits until the server has nothing to do, and then for a while more.
    pub(crate) async fn of(server: &ServerProcess, http: &Client) -> Result<Self> {
        let begin = Instant::now();
        loop {
            let rest = Self::now(server, http).await?;
            if (rest.running, rest.waiting) == (0, 0) || begin.elapsed() > PATIENCE {
                break;
            }
            sleep(POLL).await;
        }
        let resident = server.resident_when_idle().await?;
        // Before it is asked once more, which takes a handle for a moment.
        let handles = server.handles()?;
        Ok(Self {
            resident,
            handles,
            ..Self::now(server, http).await?
        })
    }

    async fn now(server: &ServerProcess, http: &Client) -> Result<Self> {
        let stats = http.get("/stats").await?;
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

/// The figures after the warm-up (a column that is called `when`) beside those at the end, and
/// whether nothing was lost. Resident memory may always grow by `slack` bytes.
pub(crate) fn compare(
    before: IdleState,
    after: IdleState,
    when: &'static str,
    slack: u64,
) -> (Table, bool) {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let most = ((before.resident as f64 * GROWTH) as u64).max(slack);
    let growth = after.resident as f64 / before.resident as f64 - 1.0;
    let mut table = Table::new(["at rest", when, "at the end", "may be", ""]);
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
        ("blocks of keys and values in use", before.blocks, after.blocks, 0),
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

    const REST: IdleState = IdleState {
        resident: 1000,
        handles: 12,
        blocks: 0,
        running: 0,
        waiting: 0,
        resident_adapters: 5,
    };

    #[test]
    fn what_stays_as_it_was_or_shrinks_is_good() {
        let after = IdleState {
            resident: 1020,
            handles: 11,
            resident_adapters: 4,
            ..REST
        };
        assert!(compare(REST, REST, "before", 0).1);
        assert!(compare(REST, after, "before", 0).1);
    }

    #[test]
    fn small_servers_may_grow_by_the_slack() {
        let after = IdleState {
            resident: 1050,
            ..REST
        };
        assert!(compare(REST, after, "before", 50).1);
        assert!(!compare(REST, after, "before", 49).1);
    }

    #[test]
    fn each_thing_that_is_lost_is_seen() {
        for after in [
            IdleState {
                resident: 1021,
                ..REST
            },
            IdleState { handles: 13, ..REST },
            IdleState { blocks: 1, ..REST },
            IdleState { running: 1, ..REST },
            IdleState { waiting: 1, ..REST },
            IdleState {
                resident_adapters: 6,
                ..REST
            },
        ] {
            let (table, good) = compare(REST, after, "before", 0);
            assert!(!good, "{after:?}");
            assert_eq!(table.to_string().matches("LOST").count(), 1, "{table}");
        }
    }
}
