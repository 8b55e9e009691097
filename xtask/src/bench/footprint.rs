//! The footprint of a server: memory beyond the KV cache, and time until it answers.

use std::fs::{self, File};
use std::io;

use anyhow::{Context, Result};
use serde_json::json;

use super::context::{Results, Tools};
use super::load::{Load, Outcome, serve};
use super::rows::{Figure, Rival, Unit};
use super::running::Running;
use super::subjects::Subject;

/// The KV cache: 2,912 tokens of SmolLM2, fewer than the load has, so that all of it is used.
const KV_MIB: f64 = 64.0;
/// 24 requests of 192 tokens.
const LOAD: Load = Load {
    clients: 8,
    adapters: 0,
    requests: 24,
};
/// Slots of the rival's server, as in the rows of servers under load.
const SLOTS: usize = 32;

pub(super) fn measure(tools: &Tools, results: &mut Results) {
    results.attempt(|results| memory(tools, results));
    for (subject, title, to_reach) in [
        (Subject::Q4_0, "SmolLM2-135M, Q4_0", "0.5 s"),
        (Subject::QWEN_LARGE, Subject::QWEN_LARGE.title, "3 s"),
    ] {
        results.attempt(|results| start(tools, results, subject, title, to_reach));
    }
}

/// Resident memory minus the KV cache: for multigraft after a load that fills the cache, for the
/// rival at its start, when it allocates and clears the cache.
fn memory(tools: &Tools, results: &mut Results) -> Result<()> {
    let row = results.rows.announce(
        "Q4_0, no adapters: resident memory beyond the KV cache",
        Unit::Mebibytes,
        Rival::LLAMA_SERVER,
        "file + 60 MiB",
    );
    let model = tools.subjects.model(Subject::Q4_0)?;
    let file = fs::metadata(&model)?.len() as f64 / f64::from(1 << 20);
    results
        .rows
        .set_to_reach(row, format!("file + 60 MiB = {:.0} MiB", file + 60.0));
    let mut figure = Figure {
        command: format!("serve --kv-memory {KV_MIB}MiB; VmRSS after bench serve, less {KV_MIB} MiB"),
        ..Figure::default()
    };
    for _ in 0..tools.rounds {
        let mut command = serve(tools, &model, None);
        command.args(["--kv-memory", &format!("{KV_MIB}MiB")]);
        let ours = Running::start(command, &tools.log("memory-multigraft"))?;
        Outcome::new(LOAD).add(tools, results, &ours)?;
        let resident = ours.resident_mib().context("the system does not say VmRSS")?;
        figure.ours.push(resident - KV_MIB);
        results
            .reports
            .push(json!({"what": "memory", "resident_mib": resident, "kv_mib": KV_MIB, "file_mib": file}));
        drop(ours);
        if let Some(rival) = &tools.llama_cpp {
            let mut command = rival.server(&model, &[], SLOTS);
            // At this level it logs the sizes of its buffers.
            command.args(["--verbosity", "4"]);
            let log = tools.log("memory-llama-server");
            let theirs = Running::start(command, &log)?;
            let resident = theirs.resident_mib().context("the system does not say VmRSS")?;
            let kv = kv_mib(&fs::read_to_string(&log)?)
                .context("llama.cpp's server does not log how large its KV buffer is")?;
            figure.theirs.push(resident - kv);
            results
                .reports
                .push(json!({"what": "memory of llama.cpp", "resident_mib": resident, "kv_mib": kv}));
        }
    }
    results.rows.fill(row, figure);
    Ok(())
}

/// From the start of the process until `/health` answers.
fn start(tools: &Tools, results: &mut Results, subject: Subject, title: &str, to_reach: &str) -> Result<()> {
    let row = results.rows.announce(
        format!("{title}: start until it answers"),
        Unit::Seconds,
        Rival::LLAMA_SERVER,
        to_reach,
    );
    let model = tools.subjects.model(subject)?;
    // Read the file once, so that both find it in the page cache.
    io::copy(&mut File::open(&model)?, &mut io::sink())?;
    let mut figure = Figure {
        command: "serve".to_owned(),
        ..Figure::default()
    };
    for _ in 0..tools.rounds {
        let ours = Running::start(serve(tools, &model, None), &tools.log("start-multigraft"))?;
        figure.ours.push(ours.started_in.as_secs_f64());
        drop(ours);
        if let Some(theirs) = tools.llama_server(&model, &[], SLOTS)? {
            figure.theirs.push(theirs.started_in.as_secs_f64());
        }
    }
    results.rows.fill(row, figure);
    Ok(())
}

/// The sum of the sizes of KV buffers in the log of llama.cpp's server, in MiB.
fn kv_mib(log: &str) -> Option<f64> {
    let sizes = log.lines().filter_map(|line| {
        let (_, size) = line.split_once("KV buffer size =")?;
        size.trim().strip_suffix("MiB")?.trim().parse::<f64>().ok()
    });
    sizes.reduce(|sum, size| sum + size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rivals_log_has_the_size_of_its_kv_cache() {
        let log = "x\nllama_kv_cache:        CPU KV buffer size =   360.00 MiB\ny\n";
        assert_eq!(kv_mib(log), Some(360.0));
        assert_eq!(kv_mib("nothing"), None);
    }
}
