//! What many registered adapters cost that are not in memory.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{Bench, Row, median, milliseconds};
use crate::harness::adapters::{RandomAdapters, Targets};

const ADAPTERS: usize = 10_000;
const REPEATS: usize = 7;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let (one, many, few) = (
        bench.dir.join("one"),
        bench.dir.join("many"),
        bench.dir.join("few"),
    );
    let adapters = RandomAdapters {
        config: &bench.config,
        rank: 1,
        targets: Targets::QueryValue,
    };
    adapters.write(&one, 0)?;
    // The same files under many names: only the number of names matters here.
    for (folder, count) in [(&few, 1), (&many, ADAPTERS)] {
        for index in 0..count {
            let to = folder.join(format!("a{index}"));
            fs::create_dir_all(&to)?;
            for name in ["adapter_config.json", "adapter_model.safetensors"] {
                fs::hard_link(one.join(name), to.join(name)).context("a hard link")?;
            }
        }
    }
    let start = |folder: &std::path::Path| {
        let arguments = [
            "--preload",
            "off",
            "--adapters",
            folder.to_str().context("UTF-8")?,
        ];
        bench.product.start(arguments)
    };
    let (mut with, mut without, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let server = start(&few)?;
        without.push(server.start.as_secs_f64());
        let before = server.resident()?;
        drop(server);
        let server = start(&many)?;
        with.push(server.start.as_secs_f64());
        memory.push((server.resident()? as f64 - before as f64) / ADAPTERS as f64);
    }
    let server = start(&many)?;
    let client = server.client()?;
    let (mut list, mut route) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let begin = Instant::now();
        let models = client.get("/v1/models").await?;
        list.push(begin.elapsed().as_secs_f64());
        let listed = models["data"].as_array().map_or(0, Vec::len);
        anyhow::ensure!(listed == ADAPTERS + 1, "{listed} models were listed");
        let begin = Instant::now();
        client.get(&format!("/v1/adapters/a{}", ADAPTERS - 1)).await?;
        route.push(begin.elapsed().as_secs_f64());
    }
    let more = median(with) - median(without);
    Ok(vec![
        Row::new(
            "10,000 registered adapters: start-up takes longer by",
            milliseconds(more),
            "100 ms",
        ),
        Row::new(
            "10,000 registered adapters: list of all (/v1/models)",
            milliseconds(median(list)),
            "100 ms",
        ),
        Row::new(
            "10,000 registered adapters: finding one",
            milliseconds(median(route)),
            "100 ms",
        ),
        Row::new(
            "10,000 registered adapters: memory of each",
            format!("{:.0} B", median(memory)),
            "1 KB",
        ),
    ])
}
