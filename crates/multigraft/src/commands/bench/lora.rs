//! `multigraft bench lora`: the low-rank kernel by itself, segments × ranks × rows.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use multigraft_kernels::{LoraDtype, LoraSegment, PackedLora, Pool, add_lora, machine::Machine};
use multigraft_loadgen::{
    output::{print, write_json},
    statistics::median,
    table::{Table, figure},
};
use multigraft_planner::Work;
use serde_json::{Value, json};

use super::{arguments::LoraArguments, machine, roofline};
use crate::config::{AdapterDtype, default_threads};

/// Bytes of the adapters that are used in turn, far more than caches hold: in a model, much other
/// data is read between two uses of an adapter.
const POOL_BYTES: usize = 256 << 20;
/// The least number of calls per figure, and their least total time.
const CALLS: usize = 15;
const TIME: Duration = Duration::from_millis(150);

/// One measurement.
struct Figure {
    rank: usize,
    segments: usize,
    /// Rows of each segment.
    rows: usize,
    seconds: f64,
    work: Work,
}

pub(super) fn run(arguments: &LoraArguments) -> Result<()> {
    let threads = arguments.threads.unwrap_or_else(default_threads);
    ensure!(threads > 0, "--threads is 0, but must be 1 or more");
    let sizes = [&arguments.ranks, &arguments.segments, &arguments.rows];
    ensure!(
        !sizes.iter().any(|sizes| sizes.contains(&0)),
        "a rank, a number of segments or of rows is 0"
    );
    ensure!(
        arguments.inputs > 0 && arguments.outputs > 0,
        "--inputs and --outputs must be 1 or more"
    );
    let before = Machine::measure(threads);
    let pool = Pool::new(threads);
    let mut figures = Vec::new();
    for &rank in &arguments.ranks {
        let adapters = adapters(arguments, rank);
        for &segments in &arguments.segments {
            for &rows in &arguments.rows {
                figures.push(measure(&pool, arguments, &adapters, segments, rows));
            }
        }
    }
    let machine = before.or_better(&Machine::measure(threads));
    if let Some(path) = &arguments.json {
        write_json(path, &json(arguments, &machine, &figures))?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    print(&text(arguments, &machine, &figures))
}

/// So many adapters of a rank that caches do not hold them.
fn adapters(arguments: &LoraArguments, rank: usize) -> Vec<PackedLora> {
    let dtype = match arguments.adapter_dtype {
        AdapterDtype::Bf16 => LoraDtype::Bf16,
        AdapterDtype::F32 => LoraDtype::F32,
        AdapterDtype::Int8 => LoraDtype::Int8,
    };
    let noise = |len: usize| (0..len).map(|i| (i as f32 * 0.7).sin() * 0.1).collect::<Vec<_>>();
    let (a, b) = (noise(rank * arguments.inputs), noise(rank * arguments.outputs));
    let first = PackedLora::new(&a, &b, rank, 1.0, dtype);
    let count = POOL_BYTES.div_ceil(first.bytes());
    let rest = (1..count).map(|_| PackedLora::new(&a, &b, rank, 1.0, dtype));
    std::iter::once(first).chain(rest).collect()
}

fn measure(
    pool: &Pool,
    arguments: &LoraArguments,
    adapters: &[PackedLora],
    segments: usize,
    rows: usize,
) -> Figure {
    let (inputs, outputs) = (arguments.inputs, arguments.outputs);
    let x = vec![0.5; segments * rows * inputs];
    let mut out = vec![0.0; segments * rows * outputs];
    let mut shrunk = Vec::new();
    let mut next = adapters.iter().cycle();
    let mut call = || {
        let step: Vec<LoraSegment<'_>> = next
            .by_ref()
            .take(segments)
            .enumerate()
            .map(|(index, lora)| LoraSegment {
                start: index * rows,
                rows,
                lora,
                at: 0,
                scale: 1.0,
            })
            .collect();
        let begin = Instant::now();
        add_lora(pool, &step, &x, &mut out, outputs, &mut shrunk);
        begin.elapsed().as_secs_f64()
    };
    call();
    let begin = Instant::now();
    let mut seconds = Vec::new();
    while seconds.len() < CALLS || begin.elapsed() < TIME {
        seconds.push(call());
    }
    let rank = adapters[0].rank();
    Figure {
        rank,
        segments,
        rows,
        seconds: median(seconds),
        work: work(arguments, rank, adapters[0].bytes(), segments, rows),
    }
}

/// Every segment's A and B are read once. Shrinking and expanding take one multiply-add per weight
/// and row.
fn work(arguments: &LoraArguments, rank: usize, bytes: usize, segments: usize, rows: usize) -> Work {
    let weights = rank * (arguments.inputs + arguments.outputs);
    let operations = (2 * weights * segments * rows) as f64;
    let mut work = Work {
        bytes: (bytes * segments) as f64,
        ..Work::default()
    };
    match arguments.adapter_dtype {
        AdapterDtype::Bf16 => work.bf16 = operations,
        // Eight bits are widened to float32.
        AdapterDtype::F32 | AdapterDtype::Int8 => work.f32 = operations,
    }
    work
}

fn text(arguments: &LoraArguments, machine: &Machine, figures: &[Figure]) -> String {
    let mut table = Table::new([
        "rank",
        "segments",
        "rows of each",
        "ms",
        "GB/s",
        "GFLOP/s",
        "least ms",
        "bound by",
        "reached",
    ]);
    for of in figures {
        let [least, bound, reached] = roofline::cells(&of.work, machine, of.seconds);
        table.row([
            of.rank.to_string(),
            of.segments.to_string(),
            of.rows.to_string(),
            format!("{:.3}", of.seconds * 1e3),
            figure(of.work.bytes / of.seconds / 1e9),
            figure((of.work.bf16 + of.work.f32) / of.seconds / 1e9),
            least,
            bound,
            reached,
        ]);
    }
    format!(
        "low-rank updates {} -> rank -> {} on {} threads; memory {} GB/s\n\n{table}",
        arguments.inputs,
        arguments.outputs,
        machine.threads,
        figure(machine.memory / 1e9),
    )
}

fn json(arguments: &LoraArguments, machine: &Machine, figures: &[Figure]) -> Value {
    let figure = |of: &Figure| {
        json!({
            "rank": of.rank,
            "segments": of.segments,
            "rows": of.rows,
            "seconds": of.seconds,
            "roofline": roofline::json(&of.work, machine, of.seconds),
        })
    };
    json!({
        "machine": machine::json_of(machine),
        "inputs": arguments.inputs,
        "outputs": arguments.outputs,
        "figures": figures.iter().map(figure).collect::<Vec<_>>(),
    })
}
