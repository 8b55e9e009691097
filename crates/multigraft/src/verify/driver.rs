//! Running prompts through a backend, without the engine: what `verify` checks is the compute
//! itself.

use anyhow::{Result, ensure};
use multigraft_model::{BLOCK_TOKENS, Backend, BlockId, Outputs, Run, Slot, Step, Wanted};

/// A prompt to run and to continue greedily.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    /// The tokens, at least one.
    pub prompt: &'a [u32],
    /// How many tokens to generate.
    pub generate: usize,
    /// The adapter; `None` is the base.
    pub adapter: Option<Slot>,
    /// The position from which on it applies.
    pub sets_in: usize,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// The logits of all rows: the prompt's, then one for each generated token but the last,
    /// `[rows, vocab]`.
    pub logits: Vec<f32>,
    /// The generated tokens.
    pub greedy: Vec<u32>,
}

/// A case under way.
struct Sequence<'a> {
    case: Case<'a>,
    blocks: Vec<BlockId>,
    /// Positions that are computed.
    computed: usize,
    outcome: Outcome,
}

impl Sequence<'_> {
    /// The tokens to compute next, at most `room` of them; none when it is done.
    fn next(&self, room: usize) -> &[u32] {
        let prompt = self.case.prompt;
        if self.computed < prompt.len() {
            let before = self.case.sets_in.checked_sub(self.computed);
            let most = before.filter(|&before| before > 0).unwrap_or(usize::MAX);
            let end = prompt.len().min(self.computed + room.min(most));
            return &prompt[self.computed..end];
        }
        let generated = self.outcome.greedy.len();
        if room == 0 || generated >= self.case.generate {
            return &[];
        }
        &self.outcome.greedy[generated - 1..]
    }

    /// What applies to them.
    fn adapter(&self) -> Option<Slot> {
        self.case.adapter.filter(|_| self.computed >= self.case.sets_in)
    }

    /// Takes the logits of the rows that [`Sequence::next`] asked for.
    fn advance(&mut self, rows: usize, logits: &[f32], vocab: usize) {
        self.computed += rows;
        self.outcome.logits.extend_from_slice(logits);
        if self.computed >= self.case.prompt.len() {
            let last = &logits[logits.len() - vocab..];
            if self.outcome.greedy.len() < self.case.generate {
                self.outcome.greedy.push(likeliest(last));
            }
        }
    }
}

/// Runs all cases together: every step has rows of every case that is not done, as far as they fit.
pub(crate) fn run(backend: &mut dyn Backend, cases: &[Case<'_>]) -> Result<Vec<Outcome>> {
    let limits = backend.limits();
    let mut free = 0..u32::try_from(limits.blocks).unwrap_or(u32::MAX);
    let mut sequences = Vec::with_capacity(cases.len());
    for &case in cases {
        let length = case.prompt.len() + case.generate;
        ensure!(
            length <= limits.context,
            "a prompt of {} tokens with {} to generate does not fit the model's context of {} tokens",
            case.prompt.len(),
            case.generate,
            limits.context
        );
        if let Some(&id) = case.prompt.iter().find(|&&id| id as usize >= limits.vocab) {
            anyhow::bail!(
                "a prompt has token {id}, but the vocabulary has {} tokens",
                limits.vocab
            );
        }
        let blocks: Vec<BlockId> = free
            .by_ref()
            .take(length.div_ceil(BLOCK_TOKENS))
            .map(BlockId)
            .collect();
        ensure!(
            blocks.len() == length.div_ceil(BLOCK_TOKENS),
            "the prompts do not fit the KV cache of {} blocks",
            limits.blocks
        );
        sequences.push(Sequence {
            case,
            blocks,
            computed: 0,
            outcome: Outcome::default(),
        });
    }
    // The seam wants the rows of an adapter side by side.
    let mut order: Vec<usize> = (0..sequences.len()).collect();

    let mut outputs = Outputs::default();
    loop {
        order.sort_by_key(|&index| sequences[index].adapter());
        let mut room = limits.step_rows;
        let mut runs = Vec::new();
        let mut of = Vec::new();
        for &index in &order {
            let sequence = &sequences[index];
            let tokens = sequence.next(room);
            if tokens.is_empty() {
                continue;
            }
            room -= tokens.len();
            of.push((index, tokens.len()));
            runs.push(Run {
                tokens,
                start: sequence.computed,
                blocks: &sequence.blocks,
                adapter: sequence.adapter(),
                scale: 1.0,
                wanted: Wanted::All,
            });
        }
        if runs.is_empty() {
            break;
        }
        backend.forward(&Step { runs: &runs }, &mut outputs)?;
        let mut rest = &outputs.logits[..];
        for (index, rows) in of {
            let (own, others) = rest.split_at(rows * limits.vocab);
            sequences[index].advance(rows, own, limits.vocab);
            rest = others;
        }
    }
    Ok(sequences.into_iter().map(|sequence| sequence.outcome).collect())
}

/// The index of the largest logit; of equals the first, as in PyTorch.
fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    u32::try_from(best).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use multigraft_model::{BackendError, Limits, PackedAdapter};

    use super::*;

    /// Likes the token after the row's own; remembers the sizes of its steps.
    struct Successor {
        step_rows: usize,
        steps: Vec<Vec<usize>>,
    }

    const VOCAB: usize = 10;

    impl Backend for Successor {
        fn limits(&self) -> Limits {
            Limits {
                vocab: VOCAB,
                hidden: 5,
                blocks: 4,
                block_bytes: 1,
                extent: 1,
                context: 32,
                step_rows: self.step_rows,
            }
        }

        fn admit(&mut self, _: &Arc<PackedAdapter>) -> Result<Slot, BackendError> {
            Ok(Slot(0))
        }

        fn release(&mut self, _: Slot) {}

        fn forward(&mut self, step: &Step<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
            outputs.logits.clear();
            self.steps
                .push(step.runs.iter().map(|run| run.tokens.len()).collect());
            for run in step.runs {
                assert!(run.start + run.tokens.len() <= run.blocks.len() * BLOCK_TOKENS);
                for &token in run.tokens {
                    let mut row = [0.0; VOCAB];
                    row[(token as usize + 1) % VOCAB] = 1.0;
                    outputs.logits.extend(row);
                }
            }
            Ok(())
        }
    }

    fn case(prompt: &[u32], generate: usize) -> Case<'_> {
        Case {
            prompt,
            generate,
            adapter: None,
            sets_in: 0,
        }
    }

    #[test]
    fn prompts_are_cut_to_the_step_and_then_continued() {
        let mut backend = Successor {
            step_rows: 4,
            steps: Vec::new(),
        };
        let outcomes = run(&mut backend, &[case(&[1, 2, 3], 3), case(&[5, 6, 7], 2)]).expect("fits");
        assert_eq!(outcomes[0].greedy, [4, 5, 6]);
        assert_eq!(outcomes[1].greedy, [8, 9]);
        assert_eq!(outcomes[0].logits.len(), 5 * VOCAB);
        assert_eq!(backend.steps, [vec![3, 1], vec![1, 2], vec![1, 1]]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut backend = Successor {
            step_rows: 4,
            steps: Vec::new(),
        };
        assert!(run(&mut backend, &[case(&[1; 30], 3)]).is_err());
        assert!(run(&mut backend, &[case(&[VOCAB as u32], 3)]).is_err());
        assert!(
            run(
                &mut backend,
                &[case(&[1; 20], 2), case(&[1; 20], 2), case(&[1], 1)]
            )
            .is_err()
        );
    }
}
