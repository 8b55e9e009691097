//! What loading adapters costs: requests that wait for it, and streams that do not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use super::{Bench, Row, median, milliseconds};
use crate::harness::adapters::{RandomAdapters, Targets};
use crate::harness::server::{add, post};
use multigraft_loadgen::arguments::{Mode, Pick, Span};
use multigraft_loadgen::generator::{self, Plan, Target};
use multigraft_loadgen::record::Record;
use multigraft_loadgen::statistics::percentile;
use multigraft_loadgen::traffic::{PlannedRequest, Traffic};

/// Adapters whose first requests are measured.
const COLD: usize = 40;
/// Adapters that are loaded while streams generate.
const STORM: usize = 100;
/// Streams during the loads.
const STREAMS: usize = 8;
/// How long the streams are measured, without loads and with them.
const MEASURED: Duration = Duration::from_secs(10);

/// The first request of an adapter that is on disk, compared with the second.
pub(super) async fn cold(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let folder = bench.dir.join("cold");
    let adapters = RandomAdapters {
        config: &bench.config,
        rank: 16,
        targets: Targets::All,
    };
    adapters.write_all(&folder, COLD)?;
    let server = bench
        .product
        .start(["--preload", "off", "--adapters", &folder.display().to_string()])?;
    let names = (0..COLD).map(|index| format!("a{index}")).collect();
    let target = server.target(names).await?;
    let span = Span { least: 32, most: 32 };
    let mut traffic = Traffic::new(1, span, span, COLD, Pick::RoundRobin, 1.0);
    let mut first_token = async |adapter| -> Result<f64> {
        let planned = PlannedRequest {
            prompt: traffic.prompt(32),
            adapter,
            output_tokens: 2,
            due: Duration::ZERO,
        };
        let record = generator::send(&target, &planned, Instant::now(), Duration::ZERO).await;
        match record.failure {
            None => Ok(record.ttft()),
            Some(failure) => bail!("a request failed: {failure}"),
        }
    };
    first_token(None).await?;
    let mut extra = Vec::new();
    for adapter in 0..COLD {
        let cold = first_token(Some(adapter)).await?;
        let warm = first_token(Some(adapter)).await?;
        extra.push(cold - warm);
    }
    extra.sort_by(f64::total_cmp);
    let worst = percentile(&extra, 95.0);
    Ok(vec![Row::new(
        "first request of a cold local adapter of rank 16 on all linear maps, beyond a warm one: p50, p95",
        format!("{}, {}", milliseconds(median(extra)), milliseconds(worst)),
        "50 ms",
    )])
}

/// Inter-token latencies of streams while many adapters are loaded.
pub(super) async fn storm(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let folder = bench.dir.join("storm");
    let adapters = RandomAdapters {
        config: &bench.config,
        rank: 16,
        targets: Targets::All,
    };
    let folders = adapters.write_all(&folder, STORM + STREAMS)?;
    let server = bench
        .product
        .start(["--allow-source", &folder.display().to_string()])?;
    let client = server.client()?;
    let names: Vec<String> = (0..STREAMS).map(|index| format!("a{index}")).collect();
    for (name, folder) in names.iter().zip(&folders) {
        add(&client, name, folder).await?;
    }
    let target = Arc::new(server.target(names).await?);
    run_streams(&target, Duration::from_secs(1)).await?;
    let quiet = gaps(&run_streams(&target, MEASURED).await?);
    // Loads go on without pause for as long as the streams are measured.
    let loading = tokio::spawn(async move {
        let (begin, mut loads) = (Instant::now(), 0);
        while begin.elapsed() < MEASURED {
            for (index, folder) in folders[STREAMS..].iter().enumerate() {
                add(&client, &format!("new{index}"), folder).await?;
                loads += 1;
                if begin.elapsed() >= MEASURED && loads >= STORM {
                    break;
                }
            }
            for index in 0..STORM {
                // Adapters that were not loaded in this round do not exist.
                let _ = post(
                    &client,
                    "/unload_lora_adapter",
                    json!({"lora_name": format!("new{index}")}),
                )
                .await;
            }
        }
        Ok::<_, anyhow::Error>((loads, begin.elapsed()))
    });
    let busy = gaps(&run_streams(&target, MEASURED).await?);
    let (loads, took) = loading.await??;
    let (quiet, busy) = (percentile(&quiet, 99.0), percentile(&busy, 99.0));
    Ok(vec![Row::new(
        format!(
            "8 streams, inter-token latency p99 while adapters are loaded ({:.0} a second), over without",
            loads as f64 / took.as_secs_f64()
        ),
        format!(
            "{:.2} ({} over {})",
            busy / quiet,
            milliseconds(busy),
            milliseconds(quiet)
        ),
        "1.2",
    )])
}

async fn run_streams(target: &Arc<Target>, duration: Duration) -> Result<Vec<Record>> {
    // Long answers to short prompts: otherwise the prompts of other streams make the longest steps.
    let (prompt, output) = (
        Span { least: 16, most: 16 },
        Span {
            least: 600,
            most: 600,
        },
    );
    let traffic = Traffic::new(2, prompt, output, STREAMS, Pick::RoundRobin, 1.0);
    let plan = Plan {
        mode: Mode::Closed,
        clients: STREAMS,
        requests: usize::MAX,
        duration: Some(duration),
    };
    let (records, _) = generator::run(target, traffic, plan).await?;
    if let Some(failure) = records.iter().find_map(|record| record.failure.as_ref()) {
        bail!("a stream failed: {failure}");
    }
    Ok(records)
}

/// All times between tokens, sorted.
fn gaps(records: &[Record]) -> Vec<f64> {
    let mut gaps: Vec<f64> = records
        .iter()
        .flat_map(|record| record.gaps.iter().copied())
        .collect();
    gaps.sort_by(f64::total_cmp);
    gaps
}
