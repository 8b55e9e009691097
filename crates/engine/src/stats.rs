//! Statistics of the engine.

use std::time::{Duration, Instant};

use multigraft_model::{AdapterHash, StepTime};

/// A histogram of a quantity of steps, such as their rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Number of steps by the first of [`Sizes::BOUNDS`] that is not less than their size; larger
    /// steps are counted last.
    pub steps: [u64; Self::BOUNDS.len() + 1],
    /// Sum of the sizes of all steps.
    pub sum: u64,
}

impl Sizes {
    /// Upper bounds, inclusive.
    pub const BOUNDS: [usize; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

    pub(crate) fn add(&mut self, size: usize) {
        self.steps[Self::BOUNDS.partition_point(|&bound| bound < size)] += 1;
        self.sum += size as u64;
    }
}

/// Time of steps by what they computed. The time of a mixed step cannot be divided into prefill and
/// decode, because all its rows share each pass over the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepKinds {
    /// Steps with prompts only.
    pub prefill: Duration,
    /// Steps with decoding sequences only.
    pub decode: Duration,
    /// Steps with both.
    pub mixed: Duration,
}

/// The engine after its last step. Counters never decrease. A client may receive its final event a
/// moment before the request is counted as ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Running sequences, without background sequences.
    pub running: usize,
    /// Background requests that the engine has taken from its channel, running or waiting.
    pub background: usize,
    /// Requests that have not started, without background requests.
    pub waiting: usize,
    /// Preempted sequences. They resume before any other request starts.
    pub preempted: usize,
    /// KV blocks that sequences hold.
    pub blocks_used: usize,
    /// KV blocks that only the prefix cache holds.
    pub blocks_cached: usize,
    /// Capacity of the KV cache, in blocks.
    pub blocks_total: usize,
    /// Resident adapters, in the order of their hashes.
    pub resident: Vec<AdapterHash>,
    /// Computed steps.
    pub steps: u64,
    /// Time spent computing steps.
    pub step_time: Duration,
    /// The same time, by what the steps computed.
    pub step_kinds: StepKinds,
    /// The same time, by parts of a step, as far as the backend measures them.
    pub step_parts: StepTime,
    /// Time spent after steps on choosing tokens and sending events, including waits for grammars.
    pub sampling_time: Duration,
    /// Rows of steps; a row is one token.
    pub step_rows: Sizes,
    /// Sequences of steps.
    pub step_sequences: Sizes,
    /// Rows of prompts, and of preempted sequences that were recomputed.
    pub prefill_rows: u64,
    /// Rows of decoding sequences.
    pub decode_rows: u64,
    /// Prompt tokens of started requests.
    pub prompt_tokens: u64,
    /// Tokens of prompts and of resumed sequences that were found in the prefix cache instead of
    /// being computed.
    pub cached_tokens: u64,
    /// Generated tokens.
    pub generated_tokens: u64,
    /// Number of preemptions.
    pub preemptions: u64,
    /// Requests that ended in [`Event::Finished`](crate::Event::Finished).
    pub finished: u64,
    /// Requests that ended in [`Event::Failed`](crate::Event::Failed) or
    /// [`Event::Refused`](crate::Event::Refused).
    pub failed: u64,
    /// Requests whose client hung up, or that [`Engine::cancel`](crate::Engine::cancel) ended.
    pub cancelled: u64,
}

/// A step that is being computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentStep {
    /// When it began.
    pub began: Instant,
    /// Number of its sequences; 0 until they are chosen.
    pub sequences: usize,
    /// Number of its rows; a row is one token.
    pub rows: usize,
    /// Number of adapters that it applies.
    pub adapters: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_counts_below_the_first_bound_that_holds_it() {
        let mut sizes = Sizes::default();
        for size in [1, 2, 3, 4, 1024, 1025] {
            sizes.add(size);
        }
        assert_eq!(sizes.steps, [1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(sizes.sum, 2059);
    }
}
