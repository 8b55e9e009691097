//! The engine's thread: it takes commands and computes steps, in turns.

use std::any::Any;
use std::collections::{BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use multigraft_model::{AdapterHash, Backend, BackendError, MemoryBudget, Outputs, Step};

use crate::clock::Clock;
use crate::constraint::Workers;
use crate::event::RequestId;
use crate::plan::{self, Planned};
use crate::residents::Residents;
use crate::sampler::Scratch;
use crate::scheduler::{Chunk, Scheduler};
use crate::sequence::{Outcome, Sequence};
use crate::shared::Shared;
use crate::stats::{CurrentStep, Stats};
use crate::submission::Command;
use crate::vocabulary::Vocabulary;

/// Owns all state that changes while requests are served.
pub(crate) struct Worker {
    backend: Box<dyn Backend>,
    vocabulary: Arc<dyn Vocabulary>,
    shared: Arc<Shared>,
    clock: Clock,
    inbox: Receiver<Command>,
    scheduler: Scheduler,
    residents: Residents,
    draining: bool,
    /// Why the device was lost, once it was: nothing more can be computed.
    lost: Option<String>,
    /// The threads for grammars, started with the first grammar.
    grammars: Option<Workers>,
    outputs: Outputs,
    scratch: Scratch,
    stats: Stats,
}

impl Worker {
    pub(crate) fn new(
        backend: Box<dyn Backend>,
        vocabulary: Arc<dyn Vocabulary>,
        shared: Arc<Shared>,
        inbox: Receiver<Command>,
        budget: Arc<MemoryBudget>,
    ) -> Self {
        let scheduler = Scheduler::new(&shared.limits, &backend.limits(), budget, shared.clock().clone());
        let mut worker = Self {
            backend,
            vocabulary,
            clock: shared.clock().clone(),
            shared,
            inbox,
            scheduler,
            residents: Residents::default(),
            draining: false,
            lost: None,
            grammars: None,
            outputs: Outputs::default(),
            scratch: Scratch::default(),
            stats: Stats::default(),
        };
        worker.publish();
        worker
    }

    /// Serves until the engine is to end. After a panic every live request fails; requests that are
    /// still in the channel fail when the channel is dropped.
    pub(crate) fn run(mut self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| while self.turn() {}));
        self.shared.closed.store(true, Ordering::Release);
        *self.shared.current_step() = None;
        if let Err(panic) = outcome {
            self.stop(&message(panic.as_ref()));
        }
    }

    /// Accepts no more requests, and fails every live one.
    fn stop(&mut self, reason: &str) {
        self.shared.closed.store(true, Ordering::Release);
        *self.shared.current_step() = None;
        tracing::error!("the engine stopped: {reason}");
        self.fail_all(&format!("the engine stopped: {reason}"));
    }

    /// One turn: takes commands and computes at most one step. `false` when no turn is to follow.
    pub(crate) fn turn(&mut self) -> bool {
        if !self.take_commands() {
            return false;
        }
        let mut step = CurrentStep {
            began: self.clock.now(),
            sequences: 0,
            rows: 0,
            adapters: 0,
        };
        *self.shared.current_step() = Some(step);
        self.drop_disconnected();
        let backend = &mut *self.backend;
        let chunks = self
            .scheduler
            .schedule(|block| backend.copy_block(block.from, block.to, block.positions));
        let mut planned = self.admit_adapters(&chunks);
        plan::order(&mut planned);
        step.sequences = planned.len();
        step.rows = planned.iter().map(|planned| planned.rows).sum();
        step.adapters = self.residents.hashes().count();
        *self.shared.current_step() = Some(step);
        self.compute(&planned);
        if let Some(reason) = self.lost.take() {
            self.stop(&reason);
            return false;
        }
        self.reap();
        self.release_adapters();
        self.publish();
        *self.shared.current_step() = None;
        true
    }

    /// Takes the commands of the handles, and sleeps while no request is live. `false` if the
    /// engine is to end.
    fn take_commands(&mut self) -> bool {
        loop {
            let idle = self.scheduler.is_idle();
            let command = if idle && !self.draining {
                self.inbox.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.inbox.try_recv()
            };
            match command {
                Ok(Command::Submit(submission)) => {
                    let sequence = Sequence::new(
                        *submission,
                        &self.scheduler.pool,
                        &*self.vocabulary,
                        &mut self.grammars,
                    );
                    self.scheduler.enqueue(sequence);
                }
                Ok(Command::MakeRoom) => {
                    let backend = &mut *self.backend;
                    self.scheduler
                        .pool
                        .make_room(|first, count| backend.forget(first, count));
                    self.publish();
                }
                Ok(Command::Cancel {
                    requests,
                    reason,
                    done,
                }) => {
                    self.cancel(&requests, &reason);
                    // The caller may not be waiting any more.
                    let _ = done.send(());
                }
                Ok(Command::Drain) => self.draining = true,
                Ok(Command::Abort) => {
                    self.fail_all("the server is shutting down");
                    return false;
                }
                // Without handles or commands, accepted requests are still served.
                Err(_) => return !idle,
            }
        }
    }

    /// Drops requests whose clients hung up, before anything is computed for them.
    fn drop_disconnected(&mut self) {
        self.scheduler.all_mut().for_each(Sequence::poll_client);
        self.reap();
    }

    /// Cancels requests, before anything more is computed for them.
    fn cancel(&mut self, requests: &HashSet<RequestId>, reason: &str) {
        let all = self.scheduler.all_mut();
        all.filter(|sequence| requests.contains(&sequence.id))
            .for_each(|sequence| sequence.cancel(reason));
        self.drop_disconnected();
        self.release_adapters();
        self.publish();
    }

    /// Makes the adapter of every scheduled sequence resident, and fails sequences whose adapter
    /// the backend refuses.
    fn admit_adapters(&mut self, chunks: &[Chunk]) -> Vec<Planned> {
        let mut planned = Vec::with_capacity(chunks.len());
        for &chunk in chunks {
            let sequence = &mut self.scheduler.queues.running[chunk.index];
            let slot = sequence
                .applied()
                .map(|used| self.residents.slot(&mut *self.backend, &used.adapter));
            match slot.transpose() {
                Ok(slot) => planned.push(Planned::new(chunk, sequence, slot)),
                Err(error @ BackendError::Lost(_)) => {
                    self.lost = Some(error.to_string());
                    return Vec::new();
                }
                Err(error) => sequence.fail(&error.to_string()),
            }
        }
        planned
    }

    /// Computes the step and hands its results to the sequences.
    fn compute(&mut self, planned: &[Planned]) {
        if planned.is_empty() {
            return;
        }
        let began = self.clock.now();
        let running = &mut self.scheduler.queues.running;
        for planned in planned {
            let sequence = &mut running[planned.index];
            if sequence.start(began) {
                self.stats.prompt_tokens += sequence.prompt_tokens() as u64;
            }
        }
        let runs = plan::runs(planned, running);
        let computed = self.backend.forward(&Step { runs: &runs }, &mut self.outputs);
        let now = self.clock.now();
        self.count(planned, now - began);
        match computed {
            Ok(()) => {
                self.deliver(planned, now);
                self.stats.sampling_time += self.clock.now() - now;
            }
            Err(error @ BackendError::Lost(_)) => self.lost = Some(error.to_string()),
            Err(error) => {
                tracing::error!(%error, "a step failed");
                let reason = error.to_string();
                let running = &mut self.scheduler.queues.running;
                planned
                    .iter()
                    .for_each(|planned| running[planned.index].fail(&reason));
            }
        }
    }

    /// Counts a step that took `time` in the statistics.
    fn count(&mut self, planned: &[Planned], time: Duration) {
        let running = &self.scheduler.queues.running;
        let decoding = planned
            .iter()
            .filter(|planned| decodes(planned, &running[planned.index]))
            .count();
        let stats = &mut self.stats;
        stats.steps += 1;
        stats.step_time += time;
        let kinds = &mut stats.step_kinds;
        *match decoding {
            0 => &mut kinds.prefill,
            all if all == planned.len() => &mut kinds.decode,
            _ => &mut kinds.mixed,
        } += time;
        let (parts, sum) = (self.outputs.time, &mut stats.step_parts);
        sum.matmul += parts.matmul;
        sum.lora += parts.lora;
        sum.attention += parts.attention;
        stats
            .step_rows
            .add(planned.iter().map(|planned| planned.rows).sum());
        stats.step_sequences.add(planned.len());
    }

    /// Hands each sequence of the step its rows of the outputs.
    fn deliver(&mut self, planned: &[Planned], now: Instant) {
        let (mut logits, mut hidden) = (self.outputs.logits.as_slice(), self.outputs.hidden.as_slice());
        let limits = self.backend.limits();
        for planned in planned {
            let &Planned {
                index, rows, wanted, ..
            } = planned;
            let sequence = &mut self.scheduler.queues.running[index];
            if decodes(planned, sequence) {
                self.stats.decode_rows += 1;
            } else {
                self.stats.prefill_rows += rows as u64;
            }
            let (sequence_logits, rest) = logits.split_at(wanted.logits(rows) * limits.vocab);
            logits = rest;
            let (sequence_hidden, rest) = hidden.split_at(wanted.hidden(rows) * limits.hidden);
            hidden = rest;
            let generated = sequence.advance(Outcome {
                rows,
                wanted,
                logits: sequence_logits,
                hidden: sequence_hidden,
                now,
                vocabulary: &*self.vocabulary,
                scratch: &mut self.scratch,
            });
            if generated {
                self.scheduler.charge_token(index);
                self.stats.generated_tokens += 1;
            }
        }
    }

    /// Drops sequences that ended, and counts them.
    fn reap(&mut self) {
        let departed = self.scheduler.reap();
        self.stats.finished += departed.finished;
        self.stats.failed += departed.failed;
        self.stats.cancelled += departed.gone;
    }

    /// Releases adapters that no started sequence needs.
    fn release_adapters(&mut self) {
        let started = self.scheduler.all().filter(|sequence| sequence.was_started());
        let needed: BTreeSet<AdapterHash> = started.filter_map(Sequence::adapter_hash).collect();
        self.residents.keep(&mut *self.backend, &needed);
    }

    /// Fails every live request with `reason`.
    fn fail_all(&mut self, reason: &str) {
        self.scheduler
            .all_mut()
            .for_each(|sequence| sequence.fail(reason));
        self.reap();
        self.publish();
    }

    /// Publishes the statistics to the handles.
    fn publish(&mut self) {
        let Scheduler { queues, pool, .. } = &self.scheduler;
        let foreground = |sequence: &&Sequence| !sequence.is_background();
        self.stats.running = queues.running.iter().filter(foreground).count();
        self.stats.background =
            self.scheduler.all().count() - self.scheduler.all().filter(foreground).count();
        self.stats.preempted = queues
            .waiting
            .iter()
            .filter(foreground)
            .filter(|sequence| sequence.was_started())
            .count();
        self.stats.blocks_used = pool.used();
        self.stats.blocks_cached = pool.cached();
        self.stats.blocks_total = pool.total();
        self.stats.preemptions = self.scheduler.preemptions;
        self.stats.cached_tokens = self.scheduler.cached_tokens;
        self.stats.resident = self.residents.hashes().collect();
        self.shared.stats().clone_from(&self.stats);
    }
}

/// Whether the sequence decodes in this step: its one row follows a generated token. Otherwise the
/// rows are of a prompt, or of a preempted sequence that resumes.
fn decodes(planned: &Planned, sequence: &Sequence) -> bool {
    planned.rows == 1 && sequence.computed() >= sequence.prompt_tokens()
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    message.unwrap_or("an internal error").to_owned()
}
