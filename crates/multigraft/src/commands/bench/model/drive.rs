//! Steps through the seam, timed.

use std::time::Instant;

use anyhow::Result;
use multigraft_model::{BLOCK_TOKENS, Backend, BlockId, Outputs, Run, Slot, Step, Wanted};

/// A sequence: its blocks, its adapter, and how far it is computed.
struct Sequence {
    blocks: Vec<BlockId>,
    adapter: Option<Slot>,
    computed: usize,
}

/// Drives a backend with tokens that mean nothing: time does not depend on them.
pub(super) struct Driver<'a> {
    backend: &'a mut dyn Backend,
    outputs: Outputs,
    /// State of a linear congruential generator.
    random: u32,
}

impl<'a> Driver<'a> {
    pub(super) fn new(backend: &'a mut dyn Backend) -> Self {
        Self {
            backend,
            outputs: Outputs::default(),
            random: 1,
        }
    }

    /// Seconds to compute a prompt of so many tokens, in steps as large as the backend takes, up to
    /// its first logits.
    pub(super) fn prefill(&mut self, tokens: usize, adapter: Option<Slot>) -> Result<f64> {
        let mut sequences = sequences(1, tokens, &[adapter]);
        let begin = Instant::now();
        self.extend(&mut sequences[0], tokens, Wanted::Last)?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Seconds of each of `steps` steps with one row for each of `batch` sequences of `context`
    /// tokens, the adapters dealt out in turn.
    pub(super) fn decode(
        &mut self,
        batch: usize,
        context: usize,
        steps: usize,
        adapters: &[Option<Slot>],
    ) -> Result<Vec<f64>> {
        let mut sequences = sequences(batch, context + steps, adapters);
        for sequence in &mut sequences {
            self.extend(sequence, context, Wanted::None)?;
        }
        let mut seconds = Vec::with_capacity(steps);
        for _ in 0..steps {
            let tokens: Vec<u32> = (0..batch).map(|_| self.token()).collect();
            let runs: Vec<Run<'_>> = sequences
                .iter()
                .zip(tokens.chunks_exact(1))
                .map(|(sequence, tokens)| sequence.run(tokens, Wanted::Last))
                .collect();
            let begin = Instant::now();
            self.backend.forward(&Step { runs: &runs }, &mut self.outputs)?;
            seconds.push(begin.elapsed().as_secs_f64());
            sequences.iter_mut().for_each(|sequence| sequence.computed += 1);
        }
        Ok(seconds)
    }

    /// Computes a sequence up to `to` tokens; `wanted` of the last step.
    fn extend(&mut self, sequence: &mut Sequence, to: usize, wanted: Wanted) -> Result<()> {
        let most = self.backend.limits().step_rows;
        while sequence.computed < to {
            let count = most.min(to - sequence.computed);
            let tokens: Vec<u32> = (0..count).map(|_| self.token()).collect();
            let last = sequence.computed + count == to;
            let run = sequence.run(&tokens, if last { wanted } else { Wanted::None });
            self.backend.forward(&Step { runs: &[run] }, &mut self.outputs)?;
            sequence.computed += count;
        }
        Ok(())
    }

    fn token(&mut self) -> u32 {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let vocab = u32::try_from(self.backend.limits().vocab).unwrap_or(u32::MAX);
        (self.random >> 8) % vocab
    }
}

impl Sequence {
    fn run<'a>(&'a self, tokens: &'a [u32], wanted: Wanted) -> Run<'a> {
        Run {
            tokens,
            start: self.computed,
            blocks: &self.blocks,
            adapter: self.adapter,
            scale: 1.0,
            wanted,
        }
    }
}

/// Blocks that sequences of so many tokens take together.
pub(super) fn blocks(sequences: usize, tokens: usize) -> usize {
    sequences * tokens.div_ceil(BLOCK_TOKENS)
}

/// Empty sequences with blocks for `tokens` tokens each; those of one adapter are neighbours, as
/// the seam wants it.
fn sequences(count: usize, tokens: usize, adapters: &[Option<Slot>]) -> Vec<Sequence> {
    let each = blocks(1, tokens);
    let mut dealt: Vec<Option<Slot>> = adapters.iter().copied().cycle().take(count).collect();
    dealt.sort_unstable();
    let blocks = |index: usize| (index * each..(index + 1) * each).map(|block| BlockId(block as u32));
    dealt
        .into_iter()
        .enumerate()
        .map(|(index, adapter)| Sequence {
            blocks: blocks(index).collect(),
            adapter,
            computed: 0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use multigraft_model::{BackendError, Limits, PackedAdapter};

    use super::*;

    /// A run: its start, its rows, its adapter, and whether its last logits were wanted.
    type Seen = (usize, usize, Option<u32>, bool);

    /// Remembers the steps.
    #[derive(Default)]
    struct Recorder(Vec<Vec<Seen>>);

    impl Backend for Recorder {
        fn limits(&self) -> Limits {
            Limits {
                vocab: 7,
                hidden: 5,
                blocks: 100,
                block_bytes: 1,
                extent: 1,
                context: 1000,
                step_rows: 20,
            }
        }

        fn admit(&mut self, _: &Arc<PackedAdapter>) -> Result<Slot, BackendError> {
            Ok(Slot(0))
        }

        fn release(&mut self, _: Slot) {}

        fn forward(&mut self, step: &Step<'_>, _: &mut Outputs) -> Result<(), BackendError> {
            assert!(
                step.runs
                    .iter()
                    .all(|run| run.tokens.iter().all(|token| *token < 7))
            );
            let run = |run: &Run<'_>| {
                assert!(run.start + run.tokens.len() <= run.blocks.len() * BLOCK_TOKENS);
                let adapter = run.adapter.map(|slot| slot.0);
                (run.start, run.tokens.len(), adapter, run.wanted == Wanted::Last)
            };
            self.0.push(step.runs.iter().map(run).collect());
            Ok(())
        }
    }

    #[test]
    fn a_prompt_is_computed_in_steps_and_ends_with_logits() {
        let mut backend = Recorder::default();
        Driver::new(&mut backend)
            .prefill(45, Some(Slot(3)))
            .expect("no faults");
        let step = |start, rows, last| vec![(start, rows, Some(3), last)];
        assert_eq!(
            backend.0,
            [step(0, 20, false), step(20, 20, false), step(40, 5, true)]
        );
    }

    #[test]
    fn decoding_goes_on_after_the_context_with_one_row_for_each_sequence() {
        let mut backend = Recorder::default();
        let adapters = [Some(Slot(1)), Some(Slot(0))];
        let seconds = Driver::new(&mut backend)
            .decode(3, 16, 2, &adapters)
            .expect("no faults");
        assert_eq!(seconds.len(), 2);
        assert_eq!(backend.0.len(), 3 + 2);
        let step = |start| {
            vec![
                (start, 1, Some(0), true),
                (start, 1, Some(1), true),
                (start, 1, Some(1), true),
            ]
        };
        assert_eq!(backend.0[3..], [step(16), step(17)]);
        let tables = sequences(3, 18, &adapters);
        let all: std::collections::HashSet<_> = tables.iter().flat_map(|sequence| &sequence.blocks).collect();
        assert_eq!(all.len(), blocks(3, 18));
    }
}
