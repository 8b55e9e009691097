//! One adapter that floods the queue, and others that do not.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::{Bench, Row};
use crate::harness::adapters::{RandomAdapters, Targets};
use crate::harness::server::ServerProcess;
use multigraft_loadgen::arguments::{Mode, Pick, Span};
use multigraft_loadgen::generator::{self, Plan};
use multigraft_loadgen::record::Record;
use multigraft_loadgen::traffic::Traffic;

/// The one that floods is the last.
const ADAPTERS: usize = 8;
const PROMPT: Span = Span { least: 64, most: 64 };
const OUTPUT: Span = Span { least: 32, most: 32 };
/// How long each part takes.
const TIME: Duration = Duration::from_secs(30);
/// How long it takes until queues are as they stay.
const SETTLING: Duration = Duration::from_secs(10);
/// What each of the steady ones asks for, of its eighth of what the server can do.
const DEMAND: f64 = 0.7;
/// What the flood asks for, of its eighth.
const FLOOD: f64 = 20.0;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let folder = bench.dir.join("fair");
    let maker = RandomAdapters {
        config: &bench.config,
        rank: 16,
        targets: Targets::All,
    };
    maker.write_all(&folder, ADAPTERS)?;
    let folder = folder.display().to_string();

    let server = bench.product.start(["--adapters", &folder])?;
    let everyone = [Sending::Clients(4); ADAPTERS];
    let capacity: f64 = run(&server, &everyone)
        .await?
        .iter()
        .map(|records| rate(records))
        .sum();
    let share = capacity / ADAPTERS as f64;
    let steady = Sending::Rate(DEMAND * share);
    let mut senders = [steady; ADAPTERS];
    senders[ADAPTERS - 1] = Sending::Nothing;
    let alone = run(&server, &senders).await?;
    senders[ADAPTERS - 1] = Sending::Rate(FLOOD * share);
    let flooded = run(&server, &senders).await?;
    let kept: Vec<f64> = (0..ADAPTERS - 1)
        .map(|i| tokens(&flooded[i]) / tokens(&alone[i]))
        .collect();
    let lost: usize = flooded[..ADAPTERS - 1]
        .iter()
        .flatten()
        .filter(|record| record.failure.is_some())
        .count();
    ensure!(lost == 0, "{lost} requests of the steady adapters failed");
    drop(server);

    // So few run at once that every adapter has always some that wait.
    let server = bench
        .product
        .start(["--max-running", "8", "--adapters", &folder])?;
    let mut senders = [Sending::Clients(4); ADAPTERS];
    senders[ADAPTERS - 1] = Sending::Clients(4 * 20);
    let served: Vec<f64> = run(&server, &senders)
        .await?
        .iter()
        .map(|records| tokens(records))
        .collect();
    let (sum, squares): (f64, f64) = (served.iter().sum(), served.iter().map(|x| x * x).sum());
    let jain = sum * sum / (ADAPTERS as f64 * squares);
    let least = kept.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(vec![
        Row::new(
            "seven steady adapters while an eighth asks for 20 times its share: what each keeps of its throughput, least",
            format!("{:.0} %", 100.0 * least),
            "85 %",
        ),
        Row::new(
            "eight adapters that always have requests waiting, one 20 times as many: Jain's index of their tokens",
            format!("{jain:.3}"),
            "0.95",
        ),
    ])
}

/// How an adapter's requests come.
#[derive(Clone, Copy, Debug)]
enum Sending {
    Nothing,
    /// So many clients, each with the next request when the one before is answered.
    Clients(usize),
    /// So many a second, whatever becomes of them.
    Rate(f64),
}

/// All adapters at once; what came of each one's requests.
async fn run(server: &ServerProcess, senders: &[Sending]) -> Result<Vec<Vec<Record>>> {
    let mut tasks = JoinSet::new();
    for (index, sending) in senders.iter().enumerate() {
        let (mode, clients, per_second) = match *sending {
            Sending::Nothing => continue,
            Sending::Clients(clients) => (Mode::Closed, clients, 1.0),
            Sending::Rate(per_second) => (Mode::Open, 1, per_second),
        };
        let target = Arc::new(server.target(vec![format!("a{index}")]).await?);
        let traffic = Traffic::new(index as u64, PROMPT, OUTPUT, 1, Pick::RoundRobin, per_second);
        let plan = Plan {
            mode,
            clients,
            requests: usize::MAX,
            duration: Some(TIME),
        };
        tasks.spawn(async move {
            Ok::<_, anyhow::Error>((index, generator::run(&target, traffic, plan).await?.0))
        });
    }
    let mut records: Vec<Vec<Record>> = senders.iter().map(|_| Vec::new()).collect();
    while let Some(done) = tasks.join_next().await {
        let (index, its) = done??;
        records[index] = its;
    }
    Ok(records)
}

/// Whole answers within the time that counts.
fn answered(records: &[Record]) -> impl Iterator<Item = &Record> {
    records
        .iter()
        .filter(|record| record.failure.is_none() && record.end > SETTLING && record.end <= TIME)
}

/// Answers a second.
fn rate(records: &[Record]) -> f64 {
    answered(records).count() as f64 / (TIME - SETTLING).as_secs_f64()
}

/// Tokens of those.
fn tokens(records: &[Record]) -> f64 {
    answered(records).map(|record| record.output_tokens as f64).sum()
}
