//! `multigraft bench model`: prefill and decode through the step seam, without engine, sampling and
//! HTTP.

use std::{iter, path::Path, sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use multigraft_adapters::RegistryOptions;
use multigraft_kernels::machine::Machine;
use multigraft_loadgen::{
    output::{print, write_json},
    statistics::median,
    table::{Table, figure},
};
use multigraft_model::{
    ModelFiles, ReadyAdapter, Slot, Wanted,
    drive::{Driver, Sequence},
};
use multigraft_planner::{Cost, Rows, Work};
use serde_json::{Value, json};

use super::{
    arguments::{ModelArguments, Phase},
    machine, roofline,
};
use crate::{
    config::{AdapterDtype, ConfigFile, ModelSettings},
    load::{Base, fetcher, load_all},
    memory::Bytes,
};

/// One measurement: a phase at certain sizes.
struct Figure {
    phase: Phase,
    threads: usize,
    /// Sequences, each with its own adapter if there are enough.
    batch: usize,
    /// Tokens of the prompt, or tokens before the decoded one.
    tokens: usize,
    adapters: usize,
    /// Times of a whole prompt or of one decode step.
    seconds: Vec<f64>,
    work: Work,
}

impl Figure {
    /// The median of the times, in seconds.
    fn seconds(&self) -> f64 {
        median(self.seconds.clone())
    }

    fn tokens_per_second(&self) -> f64 {
        let tokens = match self.phase {
            Phase::Prefill => self.tokens,
            Phase::Decode => self.batch,
        };
        tokens as f64 / self.seconds()
    }
}

/// What all measurements share.
struct Bench<'a> {
    arguments: &'a ModelArguments,
    settings: ModelSettings,
    base: Base,
    cost: Cost,
    adapters: Vec<Arc<ReadyAdapter>>,
    /// The longest sequence of the model.
    context: usize,
}

pub(super) fn run(arguments: &ModelArguments, config: Option<&Path>) -> Result<()> {
    ensure!(arguments.steps > 0, "--steps is 0, but must be 1 or more");
    ensure!(
        arguments.repetitions > 0,
        "--repetitions is 0, but must be 1 or more"
    );
    let sizes = [
        &arguments.prefill_lengths,
        &arguments.decode_batches,
        &arguments.decode_contexts,
    ];
    ensure!(
        !sizes.iter().any(|sizes| sizes.contains(&0)),
        "a length, batch size or context is 0"
    );
    let file = ConfigFile::read(config)?;
    let settings = ModelSettings::resolve(arguments.model.clone(), file.model)?;
    let fetcher = fetcher(&settings, iter::empty());
    let base = Base::open(&settings, &fetcher)?;
    let options = RegistryOptions {
        fetcher,
        ..RegistryOptions::default()
    };
    let adapters = load_all(&base.registry(&settings, options)?)?;
    let bench = Bench {
        arguments,
        cost: Cost::of(
            &*base.model,
            &ModelFiles::open(&base.path)?,
            settings.kv_dtype.into(),
        ),
        adapters: adapters.into_iter().map(|entry| entry.packed).collect(),
        context: base.context(&settings)?,
        settings,
        base,
    };
    let mut measured = Vec::new();
    for threads in thread_counts(bench.settings.threads, arguments.scaling) {
        // Before and after: other virtual machines may load the same hardware at times.
        let before = Machine::measure(threads);
        let figures = bench.figures(threads)?;
        measured.push((before.or_better(&Machine::measure(threads)), figures));
    }
    if let Some(path) = &arguments.json {
        write_json(path, &bench.json(&measured))?;
        if path.as_os_str() == "-" {
            return Ok(());
        }
    }
    print(&bench.text(&measured))
}

/// 1, 2, 4, … and `threads`, or `threads` alone.
fn thread_counts(threads: usize, scaling: bool) -> Vec<usize> {
    if !scaling {
        return vec![threads];
    }
    let mut counts: Vec<usize> = std::iter::successors(Some(1), |count| Some(count * 2))
        .take_while(|count| *count < threads)
        .collect();
    counts.push(threads);
    counts
}

impl Bench<'_> {
    /// The batch sizes and contexts of decoding: every batch size at the shortest context, every
    /// context at the smallest batch size.
    fn decodes(&self) -> Vec<(usize, usize)> {
        let fits = |context: &&usize| **context + self.arguments.steps <= self.context;
        let contexts: Vec<usize> = self
            .arguments
            .decode_contexts
            .iter()
            .filter(fits)
            .copied()
            .collect();
        let batches = &self.arguments.decode_batches;
        let (Some(&shortest), Some(&smallest)) = (contexts.iter().min(), batches.iter().min()) else {
            return Vec::new();
        };
        let longer = contexts.iter().filter(|context| **context != shortest);
        let decodes = batches.iter().map(|batch| (*batch, shortest));
        decodes
            .chain(longer.map(|context| (smallest, *context)))
            .collect()
    }

    fn prefills(&self) -> Vec<usize> {
        let fits = |length: &usize| *length <= self.context;
        self.arguments
            .prefill_lengths
            .iter()
            .copied()
            .filter(fits)
            .collect()
    }

    fn includes(&self, phase: Phase) -> bool {
        self.arguments.only.is_none_or(|only| only == phase)
    }

    /// All figures with one number of threads: the base, then with adapters if there are any.
    fn figures(&self, threads: usize) -> Result<Vec<Figure>> {
        let mut settings = self.settings.clone();
        settings.threads = threads;
        let decodes = self.decodes();
        let batch = decodes.iter().map(|(batch, _)| *batch).max().unwrap_or(1);
        settings.max_batch_tokens = settings.max_batch_tokens.max(batch);
        let block = self.base.model.kv_block(settings.kv_dtype.into());
        let blocks = |tokens: usize| tokens.div_ceil(block.tokens);
        let decoding = decodes
            .iter()
            .map(|(batch, context)| batch * blocks(context + self.arguments.steps));
        let needed = decoding
            .chain(self.prefills().iter().map(|length| blocks(*length)))
            .max();
        settings.memory = None;
        settings.kv_memory = Some(Bytes::from(needed.unwrap_or(1) * block.bytes));
        let mut backend = self.base.backend(&settings)?;
        let slots = self
            .adapters
            .iter()
            .map(|adapter| backend.admit(adapter).map(Some));
        let slots: Vec<Option<Slot>> = slots.collect::<Result<_, _>>()?;

        let mut figures = Vec::new();
        let mut timer = StepTimer::new(Driver::new(&mut *backend), block.tokens);
        for adapters in [&[None][..], &slots[..]] {
            if adapters.is_empty() {
                continue;
            }
            for length in self
                .prefills()
                .into_iter()
                .filter(|_| self.includes(Phase::Prefill))
            {
                // Once without a clock: memory that is touched for the first time, a cold cache.
                timer.prefill(length, adapters[0])?;
                let times = (0..self.arguments.repetitions).map(|_| timer.prefill(length, adapters[0]));
                figures.push(Figure {
                    phase: Phase::Prefill,
                    threads,
                    batch: 1,
                    tokens: length,
                    adapters: usize::from(adapters[0].is_some()),
                    seconds: times.collect::<Result<_>>()?,
                    work: self.prefill_work(length, settings.max_batch_tokens, adapters[0].is_some()),
                });
            }
            for &(batch, context) in decodes.iter().filter(|_| self.includes(Phase::Decode)) {
                let distinct = slots.len().min(batch) * usize::from(adapters[0].is_some());
                figures.push(Figure {
                    phase: Phase::Decode,
                    threads,
                    batch,
                    tokens: context,
                    adapters: distinct,
                    seconds: timer.decode(batch, context, self.arguments.steps, adapters)?,
                    work: self.decode_work(batch, context, distinct),
                });
            }
        }
        Ok(figures)
    }

    fn prefill_work(&self, length: usize, step: usize, adapted: bool) -> Work {
        let mut work = Work::default();
        for start in (0..length).step_by(step) {
            let count = step.min(length - start);
            let wanted = usize::from(start + count == length);
            work += self.cost.step(&[Rows { start, count, wanted }]);
            if adapted {
                work += self.adapter_work(0, count);
            }
        }
        work
    }

    fn decode_work(&self, batch: usize, context: usize, distinct: usize) -> Work {
        // The position in the middle of the steps.
        let start = context + self.arguments.steps / 2;
        let mut work = self.cost.step(&vec![
            Rows {
                start,
                count: 1,
                wanted: 1
            };
            batch
        ]);
        for adapter in 0..distinct {
            let rows = batch / distinct + usize::from(adapter < batch % distinct);
            work += self.adapter_work(adapter, rows);
        }
        work
    }

    /// The work that an adapter adds to a step with so many of its rows.
    fn adapter_work(&self, adapter: usize, rows: usize) -> Work {
        let bytes = self.adapters[adapter].bytes() as f64;
        let mut work = Work {
            bytes,
            ..Work::default()
        };
        match self.settings.adapter_dtype {
            AdapterDtype::Bf16 => work.bf16 = bytes / 2.0 * 2.0 * rows as f64,
            AdapterDtype::F32 => work.f32 = bytes / 4.0 * 2.0 * rows as f64,
            // Nine bits per weight, widened to float32.
            AdapterDtype::Int8 => work.f32 = bytes / 9.0 * 8.0 * 2.0 * rows as f64,
        }
        work
    }

    fn text(&self, measured: &[(Machine, Vec<Figure>)]) -> String {
        let mut table = Table::new([
            "phase",
            "threads",
            "sequences",
            "tokens",
            "adapters",
            "tokens/s",
            "ms",
            "least ms",
            "bound by",
            "reached",
        ]);
        for (machine, figures) in measured {
            for figure_of in figures {
                let seconds = figure_of.seconds();
                let [least, bound, reached] = roofline::cells(&figure_of.work, machine, seconds);
                table.row([
                    figure_of.phase.to_string(),
                    figure_of.threads.to_string(),
                    figure_of.batch.to_string(),
                    figure_of.tokens.to_string(),
                    figure_of.adapters.to_string(),
                    figure(figure_of.tokens_per_second()),
                    figure(seconds * 1e3),
                    least,
                    bound,
                    reached,
                ]);
            }
        }
        let mut text = format!(
            "{}: {} of packed weights\n\n{table}",
            self.base.name,
            Bytes::from(self.base.model.bytes())
        );
        for (machine, _) in measured {
            let bf16 = machine
                .bf16
                .map_or("-".to_owned(), |peak| figure(peak.rate / 1e9));
            text += &format!(
                "\n{} threads: memory {} GB/s, int8 {} GOP/s, bf16 {bf16}, f32 {} GFLOP/s",
                machine.threads,
                figure(machine.memory / 1e9),
                figure(machine.int8.rate / 1e9),
                figure(machine.f32.rate / 1e9),
            );
        }
        text.push('\n');
        let longest = self
            .arguments
            .decode_contexts
            .iter()
            .max()
            .map_or(0, |context| context + self.arguments.steps);
        let longest = longest.max(self.arguments.prefill_lengths.iter().copied().max().unwrap_or(0));
        if longest > self.context {
            text += &format!(
                "longer sequences than the context of {} tokens are left out\n",
                self.context
            );
        }
        text
    }

    fn json(&self, measured: &[(Machine, Vec<Figure>)]) -> Value {
        let figure = |machine: &Machine, figure: &Figure| {
            json!({
                "phase": figure.phase.to_string(),
                "threads": figure.threads,
                "sequences": figure.batch,
                "tokens": figure.tokens,
                "adapters": figure.adapters,
                "tokens_per_second": figure.tokens_per_second(),
                "seconds": figure.seconds(),
                "samples": figure.seconds,
                "roofline": roofline::json(&figure.work, machine, figure.seconds()),
            })
        };
        let runs = measured.iter().map(|(machine, figures)| {
            json!({
                "machine": machine::json_of(machine),
                "figures": figures.iter().map(|f| figure(machine, f)).collect::<Vec<_>>(),
            })
        });
        json!({
            "model": self.base.name,
            "weight_bytes": self.base.model.bytes(),
            "runs": runs.collect::<Vec<_>>(),
        })
    }
}

/// Times steps of tokens that mean nothing: time does not depend on them.
struct StepTimer<'a> {
    driver: Driver<'a>,
    vocab: u32,
    block_tokens: usize,
    /// State of a linear congruential generator.
    random: u32,
}

impl<'a> StepTimer<'a> {
    fn new(mut driver: Driver<'a>, block_tokens: usize) -> Self {
        let vocab = driver.backend().limits().vocab;
        Self {
            driver,
            vocab: u32::try_from(vocab).unwrap_or(u32::MAX),
            block_tokens,
            random: 1,
        }
    }

    /// Seconds to compute a prompt of so many tokens, in steps as large as the backend takes, up to
    /// its first logits.
    fn prefill(&mut self, length: usize, adapter: Option<Slot>) -> Result<f64> {
        let tokens = self.tokens(length);
        let mut sequences = Sequence::side_by_side(1, length, &[adapter], self.block_tokens);
        let begin = Instant::now();
        self.driver.prefill(&mut sequences[0], &tokens, Wanted::Last)?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Seconds of each of `steps` steps with one row for each of `batch` sequences of `context`
    /// tokens, the adapters dealt out in turn.
    fn decode(
        &mut self,
        batch: usize,
        context: usize,
        steps: usize,
        adapters: &[Option<Slot>],
    ) -> Result<Vec<f64>> {
        let mut sequences = Sequence::side_by_side(batch, context + steps, adapters, self.block_tokens);
        for sequence in &mut sequences {
            let tokens = self.tokens(context);
            self.driver.prefill(sequence, &tokens, Wanted::None)?;
        }
        let mut seconds = Vec::with_capacity(steps);
        for _ in 0..steps {
            let tokens = self.tokens(batch);
            let begin = Instant::now();
            self.driver.decode(&mut sequences, &tokens)?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }

    fn tokens(&mut self, count: usize) -> Vec<u32> {
        let next = || {
            self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.random >> 8) % self.vocab
        };
        std::iter::repeat_with(next).take(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_doubles_up_to_all_threads() {
        assert_eq!(thread_counts(2, false), [2]);
        assert_eq!(thread_counts(1, true), [1]);
        assert_eq!(thread_counts(6, true), [1, 2, 4, 6]);
    }

    #[test]
    fn a_prefill_counts_its_tokens_and_a_decode_its_sequences() {
        let mut of = Figure {
            phase: Phase::Prefill,
            threads: 1,
            batch: 4,
            tokens: 100,
            adapters: 0,
            seconds: vec![1.0, 2.0, 9.0],
            work: Work::default(),
        };
        assert_eq!(of.tokens_per_second(), 50.0);
        of.phase = Phase::Decode;
        assert_eq!(of.tokens_per_second(), 2.0);
    }
}
