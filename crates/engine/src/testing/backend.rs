//! A backend whose logits are a hash of the sequence's tokens and adapter, as found in its own KV
//! blocks.

use std::collections::HashSet;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use multigraft_model::{
    AdapterHash, Backend, BackendError, BlockId, Limits, Outputs, ReadyAdapter, Slot, Step,
};

use crate::clock::manual::ManualClock;

/// Positions that a KV block holds.
pub(crate) const BLOCK_TOKENS: usize = 16;

/// What the KV cache holds at one position.
#[derive(Clone, Copy, Debug)]
struct Entry {
    token: u32,
    position: usize,
    adapter: Option<Scaled>,
}

/// An adapter and the bits of its scale.
pub(crate) type Scaled = (AdapterHash, u32);

/// The faults of a backend.
#[derive(Default)]
pub(crate) struct Faults {
    /// This step fails, counted from 0.
    pub(crate) error_at: Option<usize>,
    /// The device is lost in this step.
    pub(crate) lost_at: Option<usize>,
    /// This step panics.
    pub(crate) panic_at: Option<usize>,
    /// Logits of this adapter are NaN.
    pub(crate) broken: Option<AdapterHash>,
    /// This adapter is for another base.
    pub(crate) refused: Option<AdapterHash>,
    /// The device is lost when this adapter is admitted.
    pub(crate) lost_at_admission: Option<AdapterHash>,
    /// The backend cannot copy blocks.
    pub(crate) cannot_copy: bool,
    /// Every step waits for a message of this channel.
    pub(crate) gate: Option<Mutex<Receiver<()>>>,
    /// Every step takes so long, by this clock.
    pub(crate) step_time: Option<(ManualClock, Duration)>,
}

/// One step as the backend saw it: for each run its adapter and how many rows.
pub(crate) type Seen = Vec<(Option<AdapterHash>, usize)>;

pub(crate) struct FakeBackend {
    limits: Limits,
    cache: Vec<[Option<Entry>; BLOCK_TOKENS]>,
    slots: Vec<Option<AdapterHash>>,
    steps: Arc<Mutex<Vec<Seen>>>,
    faults: Faults,
}

impl FakeBackend {
    pub(crate) fn new(limits: Limits) -> Self {
        Self::with_faults(limits, Faults::default())
    }

    pub(crate) fn with_faults(limits: Limits, faults: Faults) -> Self {
        let cache = vec![[None; BLOCK_TOKENS]; limits.blocks];
        Self {
            limits,
            cache,
            slots: Vec::new(),
            steps: Arc::default(),
            faults,
        }
    }

    /// The steps that it computed.
    pub(crate) fn steps(&self) -> Arc<Mutex<Vec<Seen>>> {
        Arc::clone(&self.steps)
    }

    fn adapter(&self, slot: Slot) -> AdapterHash {
        self.slots[slot.0 as usize].expect("a run's adapter is resident")
    }

    /// Panics at a step that violates the contract of [`Backend::forward`].
    fn check(&self, step: &Step<'_>) {
        let rows: usize = step.runs.iter().map(|run| run.tokens.len()).sum();
        assert!(rows >= 1 && rows <= self.limits.step_rows, "{rows} rows");
        let mut written: HashSet<BlockId> = HashSet::new();
        let mut read: HashSet<BlockId> = HashSet::new();
        let mut segments: Vec<Option<(Slot, u32)>> = Vec::new();
        for run in step.runs {
            let end = run.start + run.tokens.len();
            assert!(!run.tokens.is_empty(), "an empty run");
            assert!(end <= self.limits.context, "position {end} is beyond the context");
            assert!(
                run.blocks.len() * BLOCK_TOKENS >= end,
                "blocks do not cover position {end}"
            );
            assert!(run.tokens.iter().all(|&id| (id as usize) < self.limits.vocab));
            // Runs may share blocks of computed positions; each other block belongs to one run.
            let (before, own) = run.blocks.split_at(run.start / BLOCK_TOKENS);
            read.extend(before);
            for &block in own {
                assert!(written.insert(block), "{block:?} has two owners");
            }
            let used = run.adapter.map(|slot| (slot, run.scale.to_bits()));
            if segments.last() != Some(&used) {
                assert!(
                    !segments.contains(&used),
                    "the segment of {used:?} is in two parts"
                );
                segments.push(used);
            }
        }
        assert!(
            written.is_disjoint(&read),
            "a block that others read is written to"
        );
    }
}

impl Backend for FakeBackend {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn admit(&mut self, adapter: &Arc<ReadyAdapter>) -> Result<Slot, BackendError> {
        let hash = adapter.hash();
        if self.faults.refused == Some(hash) {
            return Err(BackendError::WrongBase);
        }
        if self.faults.lost_at_admission == Some(hash) {
            return Err(BackendError::Lost("unplugged".to_owned()));
        }
        assert!(!self.slots.contains(&Some(hash)), "an adapter is admitted twice");
        let free = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[free] = Some(hash);
        Ok(Slot(free as u32))
    }

    fn release(&mut self, slot: Slot) {
        let left = self.slots[slot.0 as usize].take();
        assert!(left.is_some(), "an adapter is released twice");
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId, positions: usize) -> bool {
        if !self.faults.cannot_copy {
            let source = self.cache[from.0 as usize];
            let copied = &mut self.cache[to.0 as usize];
            *copied = [None; BLOCK_TOKENS];
            copied[..positions].copy_from_slice(&source[..positions]);
        }
        !self.faults.cannot_copy
    }

    fn forget(&mut self, first: BlockId, count: usize) {
        self.cache[first.0 as usize..][..count].fill([None; BLOCK_TOKENS]);
    }

    fn forward(&mut self, step: &Step<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        if let Some(gate) = &self.faults.gate {
            // Receiving fails once the sender is dropped, and steps run freely.
            let _ = gate.lock().unwrap().recv();
        }
        if let Some((clock, time)) = &self.faults.step_time {
            clock.advance(*time);
        }
        let nth = self.steps.lock().unwrap().len();
        let adapter = |run: &multigraft_model::Run<'_>| run.adapter.map(|slot| self.adapter(slot));
        let seen = step
            .runs
            .iter()
            .map(|run| (adapter(run), run.tokens.len()))
            .collect();
        self.steps.lock().unwrap().push(seen);
        assert_ne!(self.faults.panic_at, Some(nth), "the backend fell over");
        self.check(step);
        if self.faults.error_at == Some(nth) {
            return Err(BackendError::WrongBase);
        }
        if self.faults.lost_at == Some(nth) {
            return Err(BackendError::Lost("unplugged".to_owned()));
        }
        let Outputs { logits, hidden, .. } = outputs;
        logits.clear();
        hidden.clear();
        for run in step.runs {
            let adapter = run.adapter.map(|slot| (self.adapter(slot), run.scale.to_bits()));
            for (position, &token) in (run.start..).zip(run.tokens) {
                let block = run.blocks[position / BLOCK_TOKENS].0 as usize;
                self.cache[block][position % BLOCK_TOKENS] = Some(Entry {
                    token,
                    position,
                    adapter,
                });
            }
            let end = run.start + run.tokens.len();
            let logits_from = end - run.wanted.logits(run.tokens.len());
            let hidden_from = end - run.wanted.hidden(run.tokens.len());
            let mut prefix = Prefix::new();
            for position in 0..end {
                let block = run.blocks[position / BLOCK_TOKENS].0 as usize;
                let entry = self.cache[block][position % BLOCK_TOKENS].expect("a position that was computed");
                assert_eq!(entry.position, position, "a block of another place");
                // An adapter may have begun to apply within the sequence; the logits depend on
                // where.
                assert!(
                    entry.adapter == adapter || entry.adapter.is_none(),
                    "a block of another adapter"
                );
                prefix.push(entry.token, entry.adapter);
                let broken = adapter.is_some() && adapter.map(|(hash, _)| hash) == self.faults.broken;
                let broken = |value: f32| if broken { f32::NAN } else { value };
                if position >= logits_from {
                    logits.extend(prefix.logits(self.limits.vocab).map(broken));
                }
                if position >= hidden_from {
                    hidden.extend(prefix.logits(self.limits.hidden).map(broken));
                }
            }
        }
        Ok(())
    }
}

/// The backend's logits after `tokens`, with an adapter that applies from `from` on, computed from
/// scratch.
pub(crate) fn logits_after(tokens: &[u32], adapter: Option<Scaled>, from: usize, vocab: usize) -> Vec<f32> {
    let mut prefix = Prefix::new();
    for (position, &token) in tokens.iter().enumerate() {
        prefix.push(token, adapter.filter(|_| position >= from));
    }
    prefix.logits(vocab).collect()
}

/// The backend's hidden states of each of `tokens`, computed from scratch.
pub(crate) fn states_of(tokens: &[u32], adapter: Option<Scaled>, from: usize, width: usize) -> Vec<Vec<f32>> {
    let mut prefix = Prefix::new();
    let mut state = |(position, &token): (usize, &u32)| {
        prefix.push(token, adapter.filter(|_| position >= from));
        prefix.logits(width).collect()
    };
    tokens.iter().enumerate().map(&mut state).collect()
}

/// A hash of the tokens so far and of the adapter of each.
struct Prefix(u64);

impl Prefix {
    fn new() -> Self {
        Self(17)
    }

    fn push(&mut self, token: u32, adapter: Option<Scaled>) {
        let adapter = adapter.map_or(0, |(hash, scale)| {
            u64::from(hash.0[0]) << 32 ^ u64::from(scale).rotate_left(40) ^ 1 << 31
        });
        self.0 = mix(self.0.rotate_left(7) ^ u64::from(token) ^ adapter);
    }

    /// Logits in steps of 1/8 between -4 and 4, so that equal ones are common.
    fn logits(&self, vocab: usize) -> impl Iterator<Item = f32> {
        let state = self.0;
        (0..vocab as u64).map(move |id| (mix(state ^ (id << 32)) % 65) as f32 / 8.0 - 4.0)
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): every bit of the input changes about half of the
/// output's.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
