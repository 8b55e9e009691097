//! Sequences through a backend without the engine: prefill, decode, greedy continuations and
//! teacher-forced logits, for verification, self tests, benchmarks and tests.

use std::fmt;

use crate::step::{Backend, BackendError, BlockId, Outputs, Run, Slot, Step, Wanted};

/// Why sequences could not be run.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A prompt and its continuation are longer than the longest sequence.
    #[error(
        "a prompt of {prompt} tokens with {generate} to generate does not fit the model's context of {context} tokens"
    )]
    Context {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens to generate.
        generate: usize,
        /// The longest sequence, in tokens.
        context: usize,
    },
    /// A prompt has a token that the model does not know.
    #[error("a prompt has token {token}, but the vocabulary has {vocab} tokens")]
    UnknownToken {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// All sequences together need more blocks than there are.
    #[error("the prompts do not fit the KV cache of {blocks} blocks")]
    Cache {
        /// Blocks of the KV cache.
        blocks: usize,
    },
    /// A step failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A sequence that is driven by hand.
#[derive(Clone, Debug)]
pub struct Sequence {
    blocks: Vec<BlockId>,
    adapter: Option<Slot>,
    computed: usize,
}

impl Sequence {
    /// A sequence of which nothing is computed yet. `blocks` is its block table, which no other
    /// sequence shares; `adapter` applies to all its tokens.
    pub fn new(blocks: Vec<BlockId>, adapter: Option<Slot>) -> Self {
        Self {
            blocks,
            adapter,
            computed: 0,
        }
    }

    /// Sequences for `tokens` tokens each, the adapters dealt out in turn, from the first block on.
    /// Those of one adapter are neighbours, as [`Step`] asks for. `block_tokens` is the backend's.
    pub fn side_by_side(
        count: usize,
        tokens: usize,
        adapters: &[Option<Slot>],
        block_tokens: usize,
    ) -> Vec<Self> {
        let each = tokens.div_ceil(block_tokens);
        let mut dealt: Vec<Option<Slot>> = adapters.iter().copied().cycle().take(count).collect();
        dealt.sort_unstable();
        let blocks = |index: usize| (index * each..(index + 1) * each).map(|block| BlockId(block as u32));
        let sequences = dealt.into_iter().enumerate();
        sequences
            .map(|(index, adapter)| Self::new(blocks(index).collect(), adapter))
            .collect()
    }

    /// The run that computes `tokens` after those that are computed.
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

/// Drives a backend.
pub struct Driver<'a> {
    backend: &'a mut dyn Backend,
    /// The most rows of one sequence in a step.
    chunk: usize,
    outputs: Outputs,
}

impl<'a> Driver<'a> {
    /// Cuts prompts into steps as large as the backend takes.
    pub fn new(backend: &'a mut dyn Backend) -> Self {
        let chunk = backend.limits().step_rows;
        Self::in_chunks(backend, chunk)
    }

    /// Cuts prompts into chunks of `chunk` tokens, at least 1 and at most what a step takes.
    pub fn in_chunks(backend: &'a mut dyn Backend, chunk: usize) -> Self {
        Self {
            backend,
            chunk,
            outputs: Outputs::default(),
        }
    }

    /// The backend.
    pub fn backend(&mut self) -> &mut dyn Backend {
        self.backend
    }

    /// Computes `tokens`, the next of a sequence, and gives the outputs of the last step, of which
    /// `wanted` is wanted.
    ///
    /// # Errors
    /// If a step fails.
    pub fn prefill(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[u32],
        wanted: Wanted,
    ) -> Result<&Outputs, BackendError> {
        let mut chunks = tokens.chunks(self.chunk).peekable();
        while let Some(chunk) = chunks.next() {
            let wanted = match chunks.peek() {
                Some(_) => Wanted::None,
                None => wanted,
            };
            let run = sequence.run(chunk, wanted);
            self.backend.forward(&Step { runs: &[run] }, &mut self.outputs)?;
            sequence.computed += chunk.len();
        }
        Ok(&self.outputs)
    }

    /// One step in which each sequence computes one token, its next; gives the logits after each,
    /// `[sequences, vocab]`.
    ///
    /// # Errors
    /// If the step fails.
    pub fn decode(&mut self, sequences: &mut [Sequence], tokens: &[u32]) -> Result<&[f32], BackendError> {
        let runs: Vec<Run<'_>> = sequences
            .iter()
            .zip(tokens.chunks_exact(1))
            .map(|(sequence, token)| sequence.run(token, Wanted::Last))
            .collect();
        self.backend.forward(&Step { runs: &runs }, &mut self.outputs)?;
        sequences.iter_mut().for_each(|sequence| sequence.computed += 1);
        Ok(&self.outputs.logits)
    }

    /// Teacher-forced logits: those after every one of `tokens`, the next of a sequence,
    /// `[tokens, vocab]`.
    ///
    /// # Errors
    /// If a step fails.
    pub fn logits(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, BackendError> {
        let mut logits = Vec::new();
        for chunk in tokens.chunks(self.chunk) {
            let run = sequence.run(chunk, Wanted::All);
            self.backend.forward(&Step { runs: &[run] }, &mut self.outputs)?;
            sequence.computed += chunk.len();
            logits.extend_from_slice(&self.outputs.logits);
        }
        Ok(logits)
    }
}

impl fmt::Debug for Driver<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("chunk", &self.chunk)
            .finish_non_exhaustive()
    }
}

/// A prompt to compute and to continue greedily.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The tokens, at least one.
    pub prompt: &'a [u32],
    /// How many tokens to generate.
    pub generate: usize,
    /// The adapter; `None` is the base.
    pub adapter: Option<Slot>,
    /// The position from which on it applies.
    pub sets_in: usize,
}

/// What a [`Case`] gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The logits of all rows: the prompt's, then one for each generated token but the last,
    /// `[rows, vocab]`.
    pub logits: Vec<f32>,
    /// The generated tokens.
    pub greedy: Vec<u32>,
}

/// A case that is being computed.
struct Running<'a> {
    case: Case<'a>,
    sequence: Sequence,
    outcome: Outcome,
}

impl Running<'_> {
    /// The tokens to compute next, at most `room` of them; none when the case is done.
    fn next(&self, room: usize) -> &[u32] {
        let (prompt, computed) = (self.case.prompt, self.sequence.computed);
        if computed < prompt.len() {
            let before = self.case.sets_in.checked_sub(computed);
            let most = before.filter(|&before| before > 0).unwrap_or(usize::MAX);
            let end = prompt.len().min(computed + room.min(most));
            return &prompt[computed..end];
        }
        let generated = self.outcome.greedy.len();
        if room == 0 || generated >= self.case.generate {
            return &[];
        }
        &self.outcome.greedy[generated - 1..]
    }

    /// The adapter that applies to them.
    fn adapter(&self) -> Option<Slot> {
        let adapter = self.case.adapter;
        adapter.filter(|_| self.sequence.computed >= self.case.sets_in)
    }

    /// Takes the logits of the rows that [`Running::next`] asked for.
    fn advance(&mut self, rows: usize, logits: &[f32], vocab: usize) {
        self.sequence.computed += rows;
        self.outcome.logits.extend_from_slice(logits);
        if self.sequence.computed >= self.case.prompt.len() {
            let last = &logits[logits.len() - vocab..];
            if self.outcome.greedy.len() < self.case.generate {
                self.outcome.greedy.push(likeliest(last));
            }
        }
    }
}

/// Runs all cases together: every step has rows of every case that is not done, as far as they fit.
///
/// # Errors
/// If a case does not fit the backend's limits, or a step fails.
pub fn run(backend: &mut dyn Backend, cases: &[Case<'_>]) -> Result<Vec<Outcome>, DriveError> {
    let limits = backend.limits();
    let mut free = 0..u32::try_from(limits.blocks).unwrap_or(u32::MAX);
    let mut running = Vec::with_capacity(cases.len());
    for &case in cases {
        let length = case.prompt.len() + case.generate;
        if length > limits.context {
            return Err(DriveError::Context {
                prompt: case.prompt.len(),
                generate: case.generate,
                context: limits.context,
            });
        }
        if let Some(&token) = case.prompt.iter().find(|&&id| id as usize >= limits.vocab) {
            let vocab = limits.vocab;
            return Err(DriveError::UnknownToken { token, vocab });
        }
        let needed = length.div_ceil(limits.block_tokens);
        let blocks: Vec<BlockId> = free.by_ref().take(needed).map(BlockId).collect();
        if blocks.len() < needed {
            return Err(DriveError::Cache {
                blocks: limits.blocks,
            });
        }
        running.push(Running {
            case,
            sequence: Sequence::new(blocks, None),
            outcome: Outcome::default(),
        });
    }
    // The rows of an adapter have to be neighbours.
    let mut order: Vec<usize> = (0..running.len()).collect();

    let mut outputs = Outputs::default();
    loop {
        order.sort_by_key(|&index| running[index].adapter());
        let mut room = limits.step_rows;
        let mut runs = Vec::new();
        let mut computed = Vec::new();
        for &index in &order {
            let case = &running[index];
            let tokens = case.next(room);
            if tokens.is_empty() {
                continue;
            }
            room -= tokens.len();
            computed.push((index, tokens.len()));
            runs.push(Run {
                adapter: case.adapter(),
                ..case.sequence.run(tokens, Wanted::All)
            });
        }
        if runs.is_empty() {
            break;
        }
        backend.forward(&Step { runs: &runs }, &mut outputs)?;
        let mut rest = &outputs.logits[..];
        for (index, rows) in computed {
            let (logits, others) = rest.split_at(rows * limits.vocab);
            running[index].advance(rows, logits, limits.vocab);
            rest = others;
        }
    }
    Ok(running.into_iter().map(|case| case.outcome).collect())
}

/// The index of the largest logit; of equals the first, as in PyTorch.
pub fn likeliest(logits: &[f32]) -> u32 {
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
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::{Limits, ReadyAdapter};

    const VOCAB: usize = 10;
    const BLOCK_TOKENS: usize = 16;

    /// A run: its start, its rows, its adapter, and whether its last logits were wanted.
    type Seen = (usize, usize, Option<u32>, bool);

    /// Its likeliest token is the one after the row's own; it remembers its steps.
    struct Successor {
        step_rows: usize,
        blocks: usize,
        steps: Vec<Vec<Seen>>,
    }

    impl Successor {
        fn new(step_rows: usize, blocks: usize) -> Self {
            Self {
                step_rows,
                blocks,
                steps: Vec::new(),
            }
        }
    }

    impl Backend for Successor {
        fn limits(&self) -> Limits {
            Limits {
                vocab: VOCAB,
                hidden: 5,
                blocks: self.blocks,
                block_tokens: BLOCK_TOKENS,
                block_bytes: 1,
                extent: 1,
                context: self.blocks * BLOCK_TOKENS / 2,
                step_rows: self.step_rows,
            }
        }

        fn admit(&mut self, _: &Arc<ReadyAdapter>) -> Result<Slot, BackendError> {
            Ok(Slot(0))
        }

        fn release(&mut self, _: Slot) {}

        fn forward(&mut self, step: &Step<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
            outputs.logits.clear();
            let seen = |run: &Run<'_>| {
                let (rows, adapter) = (run.tokens.len(), run.adapter.map(|slot| slot.0));
                (run.start, rows, adapter, run.wanted == Wanted::Last)
            };
            self.steps.push(step.runs.iter().map(seen).collect());
            for run in step.runs {
                assert!(run.start + run.tokens.len() <= run.blocks.len() * BLOCK_TOKENS);
                assert!(run.tokens.iter().all(|token| (*token as usize) < VOCAB));
                let wanted = run.wanted.logits(run.tokens.len());
                for &token in &run.tokens[run.tokens.len() - wanted..] {
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
        let mut backend = Successor::new(4, 4);
        let outcomes = run(&mut backend, &[case(&[1, 2, 3], 3), case(&[5, 6, 7], 2)]).expect("fits");
        assert_eq!(outcomes[0].greedy, [4, 5, 6]);
        assert_eq!(outcomes[1].greedy, [8, 9]);
        assert_eq!(outcomes[0].logits.len(), 5 * VOCAB);
        let rows = |step: &Vec<Seen>| step.iter().map(|run| run.1).collect::<Vec<_>>();
        let steps: Vec<_> = backend.steps.iter().map(rows).collect();
        assert_eq!(steps, [vec![3, 1], vec![1, 2], vec![1, 1]]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut backend = Successor::new(4, 4);
        let long = run(&mut backend, &[case(&[1; 30], 3)]);
        assert!(matches!(long, Err(DriveError::Context { context: 32, .. })));
        let unknown = run(&mut backend, &[case(&[VOCAB as u32], 3)]);
        assert!(matches!(unknown, Err(DriveError::UnknownToken { token: 10, .. })));
        let many = run(
            &mut backend,
            &[case(&[1; 20], 2), case(&[1; 20], 2), case(&[1], 1)],
        );
        assert!(matches!(many, Err(DriveError::Cache { blocks: 4 })));
    }

    #[test]
    fn a_prompt_is_computed_in_steps_and_ends_with_logits() {
        let mut backend = Successor::new(20, 100);
        let mut sequences = Sequence::side_by_side(1, 45, &[Some(Slot(3))], BLOCK_TOKENS);
        let mut driver = Driver::new(&mut backend);
        let outputs = driver.prefill(&mut sequences[0], &[1; 45], Wanted::Last);
        assert_eq!(outputs.expect("no faults").logits.len(), VOCAB);
        let step = |start, rows, last| vec![(start, rows, Some(3), last)];
        assert_eq!(
            backend.steps,
            [step(0, 20, false), step(20, 20, false), step(40, 5, true)]
        );
    }

    #[test]
    fn decoding_goes_on_after_the_context_with_one_row_for_each_sequence() {
        let mut backend = Successor::new(20, 100);
        let adapters = [Some(Slot(1)), Some(Slot(0))];
        let mut sequences = Sequence::side_by_side(3, 18, &adapters, BLOCK_TOKENS);
        let all: HashSet<_> = sequences.iter().flat_map(|sequence| &sequence.blocks).collect();
        assert_eq!(all.len(), 3 * 18_usize.div_ceil(BLOCK_TOKENS));
        let mut driver = Driver::new(&mut backend);
        for sequence in &mut sequences {
            driver
                .prefill(sequence, &[1; 16], Wanted::None)
                .expect("no faults");
        }
        for _ in 0..2 {
            let logits = driver.decode(&mut sequences, &[1, 2, 3]).expect("no faults");
            assert_eq!(logits.chunks(VOCAB).map(likeliest).collect::<Vec<_>>(), [2, 3, 4]);
        }
        assert_eq!(backend.steps.len(), 3 + 2);
        let step = |start| {
            vec![
                (start, 1, Some(0), true),
                (start, 1, Some(1), true),
                (start, 1, Some(1), true),
            ]
        };
        assert_eq!(backend.steps[3..], [step(16), step(17)]);
    }

    #[test]
    fn teacher_forced_logits_are_those_after_every_token() {
        let mut backend = Successor::new(20, 4);
        let blocks = [2, 0].map(BlockId).to_vec();
        let mut driver = Driver::in_chunks(&mut backend, 3);
        let mut sequence = Sequence::new(blocks, None);
        let logits = driver.logits(&mut sequence, &[1, 5, 2, 8]).expect("no faults");
        assert_eq!(
            logits.chunks(VOCAB).map(likeliest).collect::<Vec<_>>(),
            [2, 6, 3, 9]
        );
        assert_eq!(backend.steps.len(), 2);
    }
}
