//! The scheduling policy: how many rows of which sequences the next step computes.

use std::collections::VecDeque;
use std::sync::Arc;

use multigraft_model::{Limits, MemoryBudget};

use crate::blocks::{BlockCopy, BlockPool};
use crate::client::State;
use crate::clock::Clock;
use crate::fair::Shares;
use crate::limits::EngineLimits;
use crate::sequence::Sequence;

/// The most rows of a step whose logits are wanted for log-probabilities of prompts. A row of
/// logits is as wide as the vocabulary, so a whole step of them could take hundreds of megabytes.
const SCORED_ROWS: usize = 64;

/// All sequences.
#[derive(Default)]
pub(crate) struct Queues {
    /// Preempted sequences in the order of their admission, then sequences that were never started
    /// in the order of their arrival.
    pub(crate) waiting: VecDeque<Sequence>,
    /// Sequences that hold KV blocks, in the order of their admission; background sequences last.
    pub(crate) running: Vec<Sequence>,
}

/// Rows that a running sequence computes in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Index of the sequence in [`Queues::running`].
    pub(crate) index: usize,
    /// How many of the sequence's remaining rows, at least 1.
    pub(crate) rows: usize,
}

/// How many sequences ended, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Departed {
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    pub(crate) gone: u64,
}

pub(crate) struct Scheduler {
    pub(crate) queues: Queues,
    pub(crate) pool: BlockPool,
    shares: Shares,
    step_tokens: usize,
    max_running: usize,
    /// How many times a sequence was preempted.
    pub(crate) preemptions: u64,
    /// Rows that were found in the prefix cache instead of being computed.
    pub(crate) cached_tokens: u64,
}

impl Scheduler {
    pub(crate) fn new(
        limits: &EngineLimits,
        backend: &Limits,
        budget: Arc<MemoryBudget>,
        clock: Clock,
    ) -> Self {
        Self {
            queues: Queues::default(),
            pool: BlockPool::new(backend, limits.prefix_cache, budget, clock),
            shares: Shares::default(),
            step_tokens: limits.step_tokens,
            max_running: limits.max_running,
            preemptions: 0,
            cached_tokens: 0,
        }
    }

    /// Queues an accepted request.
    pub(crate) fn enqueue(&mut self, sequence: Sequence) {
        self.shares.join(sequence.share(), sequence.weight());
        self.queues.waiting.push_back(sequence);
    }

    /// The policy. Every decoding sequence computes its one row. The remaining rows of the step go
    /// to the prompts of running sequences, first to those of the share that was served least.
    /// While rows remain, waiting requests are admitted, again from the share that was served
    /// least.
    ///
    /// Background sequences compute nothing while there is any other request. They keep their
    /// blocks until a foreground request needs the blocks, or `max_running` is reached.
    ///
    /// `copy` copies the first positions of a block to another at once, or returns `false` if the
    /// backend cannot copy.
    pub(crate) fn schedule(&mut self, mut copy: impl FnMut(BlockCopy) -> bool) -> Vec<Chunk> {
        let background = self.all().all(Sequence::is_background);
        let awake = |sequence: &Sequence| sequence.is_background() == background;
        let mut chunks = Vec::new();
        let mut index = 0;
        while self.queues.running.get(index).is_some_and(awake) {
            if self.queues.running[index].remaining() == 1 {
                if !self.make_room(index) {
                    break;
                }
                chunks.push(Chunk { index, rows: 1 });
            }
            index += 1;
        }
        let mut left = Left {
            rows: self.step_tokens.saturating_sub(chunks.len()),
            scored: SCORED_ROWS,
        };
        let prompts = self.queues.running.iter().enumerate();
        let prompts = prompts.filter(|(_, sequence)| awake(sequence) && sequence.remaining() > 1);
        let mut prompts: Vec<(usize, &Sequence)> = prompts.collect();
        prompts.sort_by_key(|(_, sequence)| self.shares.served(sequence.share()));
        for (index, sequence) in prompts {
            chunks.extend(left.take(index, sequence));
        }
        while left.rows > 0
            && let Some(index) = self.admit(background, &mut copy)
        {
            chunks.extend(left.take(index, &self.queues.running[index]));
        }
        chunks
    }

    /// Finds a block for the next token of the running sequence at `index`, if it needs one, by
    /// preempting the youngest sequences. `false` if that preempted the sequence itself.
    ///
    /// The oldest sequence can always go on, because every request fits into the pool on its own.
    fn make_room(&mut self, index: usize) -> bool {
        while !self.queues.running[index].grow() {
            if !self.preempt_youngest() {
                return false;
            }
            if self.queues.running.len() == index {
                return false;
            }
        }
        true
    }

    /// Preempts the youngest running sequence: it releases its blocks and waits. `false` if none
    /// runs.
    fn preempt_youngest(&mut self) -> bool {
        let Some(mut youngest) = self.queues.running.pop() else {
            return false;
        };
        youngest.preempt();
        self.preemptions += 1;
        self.queues.waiting.push_front(youngest);
        true
    }

    /// Admits a waiting sequence, if there are blocks for all its tokens: a preempted one, or else
    /// one of the share that was served least, with the lowest value of priority, and of these the
    /// oldest. No other sequence is admitted before it. Background sequences make room for all
    /// others. Returns its index in [`Queues::running`].
    fn admit(&mut self, background: bool, copy: &mut dyn FnMut(BlockCopy) -> bool) -> Option<usize> {
        let mut index = self.next(background)?;
        let cached = loop {
            let running = self.queues.running.len();
            // A running sequence needs a new block every `block_tokens` steps. Reserving the
            // average need of one step keeps the newcomer from being preempted at once.
            let reserve = self.pool.needed(running);
            if running < self.max_running
                && let Some(cached) = self.queues.waiting[index].admit(reserve, copy)
            {
                break cached;
            }
            let gives_way = self.queues.running.last().is_some_and(Sequence::is_background);
            if background || !gives_way || !self.preempt_youngest() {
                return None;
            }
            // The preempted sequence is now the first in the queue, so the index moved by one.
            index += 1;
        };
        let next = &self.queues.waiting[index];
        if !next.was_started() {
            self.shares.charge_prompt(next.share(), next.remaining());
        }
        self.cached_tokens += cached as u64;
        let running = &mut self.queues.running;
        let position = running.partition_point(|sequence| sequence.is_background() <= background);
        running.insert(position, self.queues.waiting.remove(index)?);
        Some(position)
    }

    /// Index of the waiting sequence to admit next, among background sequences or among all others.
    fn next(&self, background: bool) -> Option<usize> {
        let waiting = self.queues.waiting.iter().enumerate();
        let waiting = waiting.filter(|(_, sequence)| sequence.is_background() == background);
        if let Some((preempted, _)) = waiting.clone().find(|(_, sequence)| sequence.was_started()) {
            return Some(preempted);
        }
        let served = |(_, sequence): &(usize, &Sequence)| self.shares.served(sequence.share());
        // `min_by_key` returns the first of equals. Priorities order the requests of one share;
        // they do not order shares.
        let (_, first) = waiting.clone().min_by_key(served)?;
        let share = first.share();
        let of_share = waiting.filter(|(_, sequence)| sequence.share() == share);
        let next = of_share.min_by_key(|(_, sequence)| sequence.priority())?;
        Some(next.0)
    }

    /// Charges a generated token to the share of the running sequence at `index`.
    pub(crate) fn charge_token(&mut self, index: usize) {
        self.shares.charge_token(self.queues.running[index].share());
    }

    /// Whether no sequence runs or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.queues.running.is_empty() && self.queues.waiting.is_empty()
    }

    /// Drops sequences that ended or whose client hung up, and frees their blocks.
    pub(crate) fn reap(&mut self) -> Departed {
        let mut departed = Departed::default();
        let shares = &mut self.shares;
        let mut stays = |sequence: &Sequence| {
            match sequence.state() {
                State::Live => return true,
                State::Gone | State::Cancelled => departed.gone += 1,
                State::Finished => departed.finished += 1,
                State::Failed => departed.failed += 1,
            }
            shares.leave(sequence.share());
            false
        };
        self.queues.running.retain(&mut stays);
        self.queues.waiting.retain(&mut stays);
        departed
    }

    /// All sequences, running or waiting.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Sequence> {
        self.queues.running.iter().chain(&self.queues.waiting)
    }

    /// All sequences, running or waiting.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Sequence> {
        self.queues.running.iter_mut().chain(&mut self.queues.waiting)
    }
}

/// The rows that remain of a step.
struct Left {
    rows: usize,
    /// Rows that may have log-probabilities of prompts.
    scored: usize,
}

impl Left {
    /// Gives a sequence as many rows as it needs and as remain.
    fn take(&mut self, index: usize, sequence: &Sequence) -> Option<Chunk> {
        let scored = sequence.wants_scores();
        let most = if scored {
            self.rows.min(self.scored)
        } else {
            self.rows
        };
        let rows = sequence.most_rows().min(most);
        self.rows -= rows;
        if scored {
            self.scored -= rows;
        }
        (rows > 0).then_some(Chunk { index, rows })
    }
}
