//! Who computes how many rows in the next step.

use std::collections::VecDeque;
use std::sync::Arc;

use multigraft_model::{Limits, MemoryBudget};

use crate::blocks::{BlockCopy, BlockPool};
use crate::client::State;
use crate::clock::Clock;
use crate::fair::Shares;
use crate::limits::EngineLimits;
use crate::sequence::Sequence;

/// The most rows of a step whose logits are wanted for the prompt's log-probabilities: each is as
/// wide as the vocabulary, so a whole step of them would be hundreds of megabytes.
const SCORED_ROWS: usize = 64;

/// All sequences.
#[derive(Default)]
pub(crate) struct Queues {
    /// First those that were preempted, in the order that they were admitted in; then those that
    /// were not started yet, in the order that they came in.
    pub(crate) waiting: VecDeque<Sequence>,
    /// Those that hold KV blocks, in the order that they were admitted in, those in the background
    /// last.
    pub(crate) running: Vec<Sequence>,
}

/// Rows that a running sequence computes in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Its place in [`Queues::running`].
    pub(crate) index: usize,
    /// How many of its remaining rows; at least one.
    pub(crate) rows: usize,
}

/// How many sequences left, and why.
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
    /// Times that a sequence gave way to an older one.
    pub(crate) preemptions: u64,
    /// Rows that were not computed since the cache had them.
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

    /// Takes a request that was accepted.
    pub(crate) fn enter(&mut self, sequence: Sequence) {
        self.shares.enter(sequence.share(), sequence.weight());
        self.queues.waiting.push_back(sequence);
    }

    /// The policy. Every sequence that generates computes its one row; what is left of the step
    /// goes to prompts of those who run, first to those whose share was given least; and while rows
    /// are left, waiting requests are admitted, again that of the share which was given least.
    ///
    /// While anybody else is there, those in the background compute nothing. They keep what they
    /// have, until somebody else needs their place or their blocks.
    ///
    /// `copy` copies the first positions of a block to another right away; `false` if that is
    /// beyond it.
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

    /// Finds a block for the next token of the running sequence at `index`, if it needs one: the
    /// youngest give way until there is. `false` if it was itself the youngest.
    ///
    /// The oldest of all can always go on, since every request fits into the pool on its own.
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

    /// The youngest of those that run gives its blocks back and waits. `false` if nobody runs.
    fn preempt_youngest(&mut self) -> bool {
        let Some(mut youngest) = self.queues.running.pop() else {
            return false;
        };
        youngest.preempt();
        self.preemptions += 1;
        self.queues.waiting.push_front(youngest);
        true
    }

    /// Lets one of those who wait run, if there are blocks for all its tokens: one that was
    /// preempted, or else of the share that was given least the one of lowest priority, of equals
    /// the oldest. Nobody overtakes it, and those in the background make room for all others. Its
    /// place in [`Queues::running`].
    fn admit(&mut self, background: bool, copy: &mut dyn FnMut(BlockCopy) -> bool) -> Option<usize> {
        let mut index = self.next(background)?;
        let cached = loop {
            let running = self.queues.running.len();
            // A running sequence needs a new block once in so many steps as a block has tokens.
            // Leaving blocks for one such step keeps the newcomer from being preempted right away.
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
            // It stands before all others now.
            index += 1;
        };
        let next = &self.queues.waiting[index];
        if !next.was_started() {
            self.shares.charge_prompt(next.share(), next.remaining());
        }
        self.cached_tokens += cached as u64;
        let running = &mut self.queues.running;
        let place = running.partition_point(|sequence| sequence.is_background() <= background);
        running.insert(place, self.queues.waiting.remove(index)?);
        Some(place)
    }

    /// Which of those who wait is next, among those in the background or among all others.
    fn next(&self, background: bool) -> Option<usize> {
        let waiting = self.queues.waiting.iter().enumerate();
        let waiting = waiting.filter(|(_, sequence)| sequence.is_background() == background);
        if let Some((preempted, _)) = waiting.clone().find(|(_, sequence)| sequence.was_started()) {
            return Some(preempted);
        }
        let served = |(_, sequence): &(usize, &Sequence)| self.shares.served(sequence.share());
        // Of equals the first, here and below: a priority tells requests of one share apart and no
        // shares.
        let (_, first) = waiting.clone().min_by_key(served)?;
        let share = first.share();
        let its = waiting.filter(|(_, sequence)| sequence.share() == share);
        let next = its.min_by_key(|(_, sequence)| sequence.priority())?;
        Some(next.0)
    }

    /// A running sequence was given a token.
    pub(crate) fn charge_token(&mut self, index: usize) {
        self.shares.charge_token(self.queues.running[index].share());
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.queues.running.is_empty() && self.queues.waiting.is_empty()
    }

    /// Drops those that ended and those whose client hung up; their blocks are free.
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

    /// Everyone.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Sequence> {
        self.queues.running.iter().chain(&self.queues.waiting)
    }

    /// Everyone.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Sequence> {
        self.queues.running.iter_mut().chain(&mut self.queues.waiting)
    }
}

/// What is left of a step.
struct Left {
    rows: usize,
    scored: usize,
}

impl Left {
    /// Gives a sequence as many rows as it needs and there are.
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
