//! Figures of the engine, for those who watch it.

use std::time::{Duration, Instant};

use multigraft_model::{AdapterHash, StepTime};

/// How many steps had how much of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Steps by the first of [`Sizes::BOUNDS`] that is not less; those with more than any come
    /// last.
    pub steps: [u64; Self::BOUNDS.len() + 1],
    /// What all of them had together.
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

/// Time of steps by what they computed. A step that computes prompts and answers at once is mixed:
/// its rows share every pass over the weights, so nothing of its time is the one's or the other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepKinds {
    /// Prompts alone.
    pub prefill: Duration,
    /// Answers alone.
    pub decode: Duration,
    /// Both.
    pub mixed: Duration,
}

/// The engine after its last step. Counters only grow. A client may hear of its end a moment before
/// it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that run, those in the background not counted.
    pub running: usize,
    /// Requests in the background that run or were taken from the queue.
    pub background: usize,
    /// Requests that have not been started, those in the background not counted.
    pub waiting: usize,
    /// Sequences that were started and gave way to older ones; they resume before any other request
    /// starts.
    pub preempted: usize,
    /// KV blocks in use.
    pub blocks_used: usize,
    /// KV blocks that are not in use, but kept for requests that begin like earlier ones.
    pub blocks_cached: usize,
    /// KV blocks.
    pub blocks_total: usize,
    /// Adapters that are resident, in the order of their hashes.
    pub resident: Vec<AdapterHash>,
    /// Steps that were computed.
    pub steps: u64,
    /// Time spent computing them.
    pub step_time: Duration,
    /// The same time by what was computed.
    pub step_kinds: StepKinds,
    /// The same time by parts, as far as the backend measures them.
    pub step_parts: StepTime,
    /// Time after steps, spent on choosing tokens and handing them on. Who waits for a grammar
    /// waits here.
    pub sampling_time: Duration,
    /// Rows of steps: tokens, one each.
    pub step_rows: Sizes,
    /// Sequences of steps.
    pub step_sequences: Sizes,
    /// Rows that computed prompts (or recomputed a preempted sequence).
    pub prefill_rows: u64,
    /// Rows that each computed one generated token's successor.
    pub decode_rows: u64,
    /// Prompt tokens of requests that were started.
    pub prompt_tokens: u64,
    /// Tokens of prompts, and of sequences that were resumed, that were found in the prefix cache
    /// and not computed.
    pub cached_tokens: u64,
    /// Tokens that were generated.
    pub generated_tokens: u64,
    /// Times that a sequence gave way to an older one.
    pub preemptions: u64,
    /// Requests that ended in [`Event::Finished`](crate::Event::Finished).
    pub finished: u64,
    /// Requests that ended in [`Event::Failed`](crate::Event::Failed) or
    /// [`Event::Refused`](crate::Event::Refused).
    pub failed: u64,
    /// Requests whose client hung up, or that were ended by
    /// [`Engine::cancel`](crate::Engine::cancel).
    pub cancelled: u64,
}

/// A step that has begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// When it began.
    pub began: Instant,
    /// Sequences that it computes; 0 until they are chosen.
    pub sequences: usize,
    /// Rows that it computes: tokens, one each.
    pub rows: usize,
    /// Adapters that it applies.
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
