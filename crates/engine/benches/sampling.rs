//! Time of the engine's thread per generated token: sampler, text and bookkeeping, without the
//! backend, which copies prepared logits here.
//!
//!     cargo bench -p multigraft-engine --bench sampling
#![expect(clippy::unwrap_used, reason = "a program for whoever works on the engine")]
#![expect(clippy::print_stdout, reason = "its output is the figures")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use multigraft_engine::{Engine, EngineOptions, Event, Request, Sampling, Sink, Stop};
use multigraft_model::{Backend, BackendError, Limits, Outputs, ReadyAdapter, Slot, Step};
use multigraft_text::Tokenizer;

/// Number of sequences that run at once.
const SEQUENCES: usize = 32;
/// Number of tokens that each generates.
const TOKENS: usize = 40;
/// Number of runs, of which the best counts.
const RUNS: usize = 3;

/// A backend that returns prepared rows of logits in turn.
struct Canned {
    vocab: usize,
    rows: Vec<Vec<f32>>,
}

impl Canned {
    /// Nearly normal logits with standard deviation `spread`, and twenty that are larger, the first
    /// 12.
    fn new(vocab: usize, spread: f32) -> Self {
        let mut state = 1_u64;
        let mut uniform = || {
            // Knuth's MMIX generator.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let mut row = || {
            let mut row: Vec<f32> = (0..vocab)
                .map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * spread)
                .collect();
            for nth in 0..20 {
                let at = (uniform() * vocab as f32) as usize % vocab;
                row[at] = 12.0 - nth as f32 * 0.4;
            }
            row
        };
        let rows = (0..SEQUENCES).map(|_| row()).collect();
        Self { vocab, rows }
    }
}

impl Backend for Canned {
    fn limits(&self) -> Limits {
        Limits {
            vocab: self.vocab,
            hidden: 5,
            blocks: 1024,
            block_tokens: 16,
            block_bytes: 1,
            extent: 1,
            context: 1024,
            step_rows: 256,
        }
    }

    fn admit(&mut self, _: &Arc<ReadyAdapter>) -> Result<Slot, BackendError> {
        Ok(Slot(0))
    }

    fn release(&mut self, _: Slot) {}

    fn forward(&mut self, step: &Step<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let logits = &mut outputs.logits;
        logits.clear();
        for (run, row) in step.runs.iter().zip(self.rows.iter().cycle()) {
            for _ in 0..run.wanted.logits(run.tokens.len()) {
                logits.extend_from_slice(row);
            }
        }
        Ok(())
    }
}

/// A sink that reports the end of its request.
struct Done(Sender<()>);

impl Sink for Done {
    fn emit(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Finished(_) => drop(self.0.send(())),
            Event::Failed(reason) => panic!("{reason}"),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn is_gone(&self) -> bool {
        false
    }
}

/// Time per token, without the backend.
fn measure(vocab: usize, spread: f32, sampling: &Sampling, logprobs: Option<usize>) -> Duration {
    let folder = multigraft_testing::fixtures().join("tokenizer/smollm");
    let tokenizer = Arc::new(Tokenizer::from_folder(&folder).unwrap());
    let engine = Engine::start(
        Box::new(Canned::new(vocab, spread)),
        tokenizer,
        EngineOptions::default(),
    );
    let one = || {
        let before = engine.stats();
        let began = Instant::now();
        let (done, ends) = mpsc::channel();
        for seed in 0..SEQUENCES as u64 {
            let request = Request {
                sampling: Sampling {
                    seed: Some(seed),
                    ..sampling.clone()
                },
                stop: Stop {
                    ignore_eos: true,
                    ..Stop::default()
                },
                logprobs,
                ..Request::new(vec![1; 2], TOKENS)
            };
            engine.submit(request, Box::new(Done(done.clone()))).unwrap();
        }
        drop(done);
        ends.iter().for_each(drop);
        let elapsed = began.elapsed();
        let computing = engine.stats().step_time - before.step_time;
        elapsed.saturating_sub(computing) / (SEQUENCES * TOKENS) as u32
    };
    let best = (0..RUNS).map(|_| one()).min().unwrap();
    engine.shutdown();
    best
}

fn main() {
    let base = Sampling::default();
    let (greedy, top_p) = (
        Sampling::greedy(),
        Sampling {
            top_p: 0.9,
            ..base.clone()
        },
    );
    let penalised = Sampling {
        top_k: Some(40),
        repetition_penalty: 1.1,
        presence_penalty: 0.5,
        ..base.clone()
    };
    // With a spread of 0.5 the larger logits have nearly all probability; with 1.5 the others have
    // half.
    let cases = [
        ("greedy", &greedy, None, 0.5),
        ("greedy, 5 logprobs", &greedy, Some(5), 0.5),
        ("temperature only", &base, None, 0.5),
        ("top_p 0.9", &top_p, None, 0.5),
        ("top_p 0.9, flat", &top_p, None, 1.5),
        ("top_k 40, penalties", &penalised, None, 0.5),
    ];
    println!("{:>10} {:<22} {:>12}", "vocabulary", "sampling", "per token");
    for vocab in [49_152, 151_936] {
        for (name, sampling, logprobs, spread) in cases {
            let time = measure(vocab, spread, sampling, logprobs);
            println!("{vocab:>10} {name:<22} {:>9.1} µs", time.as_secs_f64() * 1e6);
        }
    }
}
