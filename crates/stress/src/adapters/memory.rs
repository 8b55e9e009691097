//! The memory that adapters add to that of their base.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Bench, Row};
use crate::harness::adapters::{RandomAdapters, Targets};
use crate::harness::server::post;

const ADAPTERS: usize = 30;
/// Tokens of every request: enough for the server to allocate all buffers of a step.
const TOKENS: usize = 4;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let folder = bench.dir.join("memory");
    let adapters = RandomAdapters {
        config: &bench.config,
        rank: 8,
        targets: Targets::QueryValue,
    };
    adapters.write_all(&folder, ADAPTERS)?;
    let folder = folder.display().to_string();
    // The same number of requests in the same order, so that the KV cache and all buffers are the
    // same with adapters and without.
    let without = run(bench, &[], |_| None).await?;
    let with = run(bench, &["--adapters", &folder], |index| Some(format!("a{index}"))).await?;
    let more = with.resident as f64 - without.resident as f64;
    let of = |bytes: f64| format!("{:.2} %", 100.0 * bytes / without.resident as f64);
    Ok(vec![Row::new(
        format!(
            "{ADAPTERS} adapters (rank 8 on q and v, bf16) over the base: resident memory with them, over {:.2} GB without",
            without.resident as f64 / 1e9
        ),
        format!("{} more; {} as listed", of(more), of(with.listed as f64)),
        "1.5 % over Mistral-7B's shapes in bf16",
    )])
}

struct Memory {
    /// Resident memory of the process, in bytes.
    resident: u64,
    /// Memory of its adapters as the server lists it, in bytes.
    listed: u64,
}

/// A server's memory after as many requests as there are adapters. Each goes to the model that
/// `model` returns, or else to the base.
async fn run(
    bench: &Bench<'_>,
    arguments: &[&str],
    model: impl Fn(usize) -> Option<String>,
) -> Result<Memory> {
    let server = bench.product.start(arguments)?;
    let client = server.client()?;
    let models = client.get("/v1/models").await?;
    let base = models["data"][0]["id"]
        .as_str()
        .context("the base's name")?
        .to_owned();
    for index in 0..ADAPTERS {
        let model = model(index).unwrap_or_else(|| base.clone());
        let prompt: Vec<usize> = (0..TOKENS).map(|token| token + 100 * index).collect();
        let body = json!({"model": model, "prompt": prompt, "max_tokens": 1});
        let answer = post(&client, "/v1/completions", body).await?;
        ensure!(
            answer["usage"]["completion_tokens"] == 1,
            "{model} does not answer: {answer}"
        );
    }
    let listed = client.get("/v1/adapters").await?;
    Ok(Memory {
        resident: server.resident_when_idle().await?,
        listed: listed["memory"]["bytes"].as_u64().context("adapters' memory")?,
    })
}
