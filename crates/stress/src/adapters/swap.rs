//! One name whose adapter is replaced again and again while it is in use.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Bench, Row};
use crate::harness::adapters::{RandomAdapters, Targets};
use crate::harness::server::{add, post};
use multigraft_loadgen::client::Client;

const SWAPS: usize = 200;
const STREAMS: usize = 32;
/// Swaps before resident memory is first measured.
const WARM_UP: usize = 20;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let folder = bench.dir.join("swap");
    let adapters = RandomAdapters {
        config: &bench.config,
        rank: 16,
        targets: Targets::All,
    };
    let folders = adapters.write_all(&folder, 2)?;
    let allowed = folder.display().to_string();
    // A small KV cache, which is soon full: its growth would look like that of adapters.
    let arguments = [
        "--allow-source",
        &allowed,
        "--prefix-cache",
        "off",
        "--kv-memory",
        "64MiB",
    ];
    let server = bench.product.start(arguments)?;
    let client = server.client()?;
    // The answer of each version to each prompt, without other requests.
    let mut expected = Expected::new();
    for folder in &folders {
        add(&client, "a", folder).await?;
        for prompt in 0..STREAMS {
            let (version, text) = complete(&client, prompt).await?;
            expected.insert((version, prompt), text);
        }
    }
    let expected = Arc::new(expected);
    let swaps = async |count| {
        for swap in 0..count {
            add(&client, "a", &folders[swap % 2]).await?;
        }
        Ok(())
    };
    // The memory that streams and loads take by themselves.
    streams(&client, &expected, || swaps(WARM_UP)).await?;
    let before = server.resident_when_idle().await?;
    let (right, wrong) = streams(&client, &expected, || swaps(SWAPS)).await?;
    let after = server.resident_when_idle().await?;
    let listed = client.get("/v1/adapters").await?;
    let bytes = listed["memory"]["bytes"].as_u64().context("bytes of adapters")?;
    let one = listed["data"][0]["bytes"]
        .as_u64()
        .context("bytes of the adapter")?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(vec![
        Row::new(
            "200 swaps of one name under 32 streams: answers that are one version's to the bit; others",
            format!("{right}; {wrong}"),
            "all; 0",
        ),
        Row::new(
            "the same: adapters in memory afterwards; resident memory after 20 swaps, after 220",
            format!("{}; {:.0}, {:.0} MiB", bytes / one, mib(before), mib(after)),
            "1; as before",
        ),
    ])
}

/// The answer of each version to each prompt.
type Expected = HashMap<(String, usize), String>;

/// Sends requests until `meanwhile` is done. Returns how many answers were right and how many
/// wrong.
async fn streams<F: Future<Output = Result<()>>>(
    client: &Client,
    expected: &Arc<Expected>,
    meanwhile: impl FnOnce() -> F,
) -> Result<(usize, usize)> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut streams = JoinSet::new();
    for prompt in 0..STREAMS {
        let (client, stop, expected) = (client.clone(), Arc::clone(&stop), Arc::clone(expected));
        streams.spawn(async move {
            let (mut right, mut wrong) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let (version, text) = complete(&client, prompt).await?;
                match expected.get(&(version, prompt)) == Some(&text) {
                    true => right += 1,
                    false => wrong += 1,
                }
            }
            Ok::<_, anyhow::Error>((right, wrong))
        });
    }
    meanwhile().await?;
    stop.store(true, Ordering::Relaxed);
    let (mut right, mut wrong) = (0, 0);
    while let Some(counts) = streams.join_next().await {
        let (of_stream_right, of_stream_wrong) = counts??;
        right += of_stream_right;
        wrong += of_stream_wrong;
    }
    Ok((right, wrong))
}

/// The version that answered, and its answer.
async fn complete(client: &Client, prompt: usize) -> Result<(String, String)> {
    let body = json!({"model": "a", "prompt": format!("Chapter {prompt}. The"), "max_tokens": 32, "temperature": 0,
        "ignore_eos": true});
    let answer = post(client, "/v1/completions", body).await?;
    let text = answer["choices"][0]["text"].as_str().context("a text")?;
    let version = answer["system_fingerprint"].as_str().context("a fingerprint")?;
    Ok((version.to_owned(), text.to_owned()))
}
