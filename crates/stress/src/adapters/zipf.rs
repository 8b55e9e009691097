//! Many more adapters than the memory holds.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Bench, Row};
use crate::harness::adapters::{RandomAdapters, Targets};
use crate::harness::server::post;
use multigraft_loadgen::arguments::{Mode, Pick, Span};
use multigraft_loadgen::generator::{self, Plan};

const ADAPTERS: usize = 2000;
/// How many adapters the memory holds.
const RESIDENT: usize = 200;
const CLIENTS: usize = 16;
const REQUESTS: usize = 600;
/// Adapters whose answers are compared.
const COMPARED: usize = 64;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let folder = bench.dir.join("zipf");
    let adapters = RandomAdapters {
        config: &bench.config,
        rank: 8,
        targets: Targets::QueryValue,
    };
    adapters.write_all(&folder, ADAPTERS)?;
    let folder = folder.display().to_string();
    let (all, reference, bytes) = run(bench, &["--adapters", &folder]).await?;
    let memory = (bytes / ADAPTERS * RESIDENT).to_string();
    let arguments = [
        "--adapters",
        &folder,
        "--preload",
        "off",
        "--adapter-memory",
        &memory,
    ];
    let (some, answers, _) = run(bench, &arguments).await?;
    let wrong = reference.iter().zip(&answers).filter(|(a, b)| a != b).count();
    Ok(vec![
        Row::new(
            "2,000 adapters (rank 8 on q and v) by Zipf's law, memory for 200: throughput over all resident",
            format!("{:.2} ({:.0} over {:.0} tokens/s)", some / all, some, all),
            "0.8",
        ),
        Row::new(
            "the same: requests lost; answers of 64 adapters that differ from those with all resident",
            format!("0; {wrong}"),
            "0; 0",
        ),
    ])
}

/// Output tokens per second, answers of some adapters with their hashes, and the bytes of all
/// adapters in memory.
async fn run(bench: &Bench<'_>, arguments: &[&str]) -> Result<(f64, Vec<String>, usize)> {
    let server = bench.product.start(arguments)?;
    let target = Arc::new(
        server
            .target((0..ADAPTERS).map(|index| format!("a{index}")).collect())
            .await?,
    );
    let span = |tokens| Span {
        least: tokens,
        most: tokens,
    };
    let pick = Pick::Zipf(1.0);
    let traffic = multigraft_loadgen::traffic::Traffic::new(3, span(128), span(64), ADAPTERS, pick, 1.0);
    let plan = Plan {
        mode: Mode::Closed,
        clients: CLIENTS,
        requests: REQUESTS / 3,
        duration: None,
    };
    // Until the most used adapters are in memory.
    let (_, traffic) = generator::run(&target, traffic, plan).await?;
    let plan = Plan {
        requests: REQUESTS,
        ..plan
    };
    let (records, _) = generator::run(&target, traffic, plan).await?;
    let failed = records.iter().find_map(|record| record.failure.as_ref());
    ensure!(failed.is_none(), "a request was lost: {failed:?}");
    let begin = records.iter().map(|record| record.sent).min().unwrap_or_default();
    let end = records.iter().map(|record| record.end).max().unwrap_or_default();
    let tokens: usize = records.iter().map(|record| record.output_tokens).sum();

    let client = server.client()?;
    let mut answers = Vec::new();
    for index in 0..COMPARED {
        let name = format!("a{}", index * ADAPTERS / COMPARED);
        let body = json!({"model": name, "prompt": "The old bridge", "max_tokens": 16, "temperature": 0});
        let answer = post(&client, "/v1/completions", body).await?;
        let text = answer["choices"][0]["text"].as_str().context("a text")?;
        answers.push(format!("{} {text}", answer["system_fingerprint"]));
    }
    let listed = client.get("/v1/adapters").await?;
    let bytes = listed["memory"]["bytes"].as_u64().context("bytes of adapters")?;
    Ok((
        tokens as f64 / (end - begin).as_secs_f64(),
        answers,
        usize::try_from(bytes)?,
    ))
}
