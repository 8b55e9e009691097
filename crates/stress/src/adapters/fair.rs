//! Fairness: one adapter floods the queue, the others do not.

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

/// How many adapters there are. The last one floods the queue.
const ADAPTERS: usize = 8;
const PROMPT: Span = Span { least: 64, most: 64 };
const OUTPUT: Span = Span { least: 32, most: 32 };
/// How long each load lasts.
const TIME: Duration = Duration::from_secs(30);
/// How long queues take to settle. Answers before that do not count.
const SETTLING: Duration = Duration::from_secs(10);
/// The load of each steady adapter, relative to its eighth of the server's capacity.
const STEADY_LOAD: f64 = 0.7;
/// The load of the flood, relative to its eighth.
const FLOOD_LOAD: f64 = 20.0;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let folder = bench.dir.join("fair");
    let adapters = RandomAdapters {
        config: &bench.config,
        rank: 16,
        targets: Targets::All,
    };
    adapters.write_all(&folder, ADAPTERS)?;
    let folder = folder.display().to_string();

    let server = bench.product.start(["--adapters", &folder])?;
    let everyone = [Load::Clients(4); ADAPTERS];
    let capacity: f64 = run(&server, &everyone)
        .await?
        .iter()
        .map(|records| rate(records))
        .sum();
    let share = capacity / ADAPTERS as f64;
    let steady = Load::Rate(STEADY_LOAD * share);
    let mut loads = [steady; ADAPTERS];
    loads[ADAPTERS - 1] = Load::Nothing;
    let alone = run(&server, &loads).await?;
    loads[ADAPTERS - 1] = Load::Rate(FLOOD_LOAD * share);
    let flooded = run(&server, &loads).await?;
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

    // So few sequences run at once that every adapter always has requests that wait.
    let server = bench
        .product
        .start(["--max-running", "8", "--adapters", &folder])?;
    let mut loads = [Load::Clients(4); ADAPTERS];
    loads[ADAPTERS - 1] = Load::Clients(4 * 20);
    let served: Vec<f64> = run(&server, &loads)
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

/// The load of one adapter.
#[derive(Clone, Copy, Debug)]
enum Load {
    Nothing,
    /// Closed loop with so many clients.
    Clients(usize),
    /// Open loop with so many requests per second.
    Rate(f64),
}

/// Puts all loads on the server at once. Returns the records of each adapter.
async fn run(server: &ServerProcess, loads: &[Load]) -> Result<Vec<Vec<Record>>> {
    let mut tasks = JoinSet::new();
    for (index, load) in loads.iter().enumerate() {
        let (mode, clients, per_second) = match *load {
            Load::Nothing => continue,
            Load::Clients(clients) => (Mode::Closed, clients, 1.0),
            Load::Rate(per_second) => (Mode::Open, 1, per_second),
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
    let mut records: Vec<Vec<Record>> = loads.iter().map(|_| Vec::new()).collect();
    while let Some(done) = tasks.join_next().await {
        let (index, of_adapter) = done??;
        records[index] = of_adapter;
    }
    Ok(records)
}

/// Complete answers after the queues have settled.
fn answered(records: &[Record]) -> impl Iterator<Item = &Record> {
    records
        .iter()
        .filter(|record| record.failure.is_none() && record.end > SETTLING && record.end <= TIME)
}

/// Answers per second.
fn rate(records: &[Record]) -> f64 {
    answered(records).count() as f64 / (TIME - SETTLING).as_secs_f64()
}

/// Tokens of these answers.
fn tokens(records: &[Record]) -> f64 {
    answered(records).map(|record| record.output_tokens as f64).sum()
}
