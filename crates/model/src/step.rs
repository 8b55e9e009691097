//! The seam between the engine and compute: one forward pass over the rows of many sequences.
//!
//! The engine says *which tokens at which positions, under which adapter, with which KV blocks*; a
//! [`Backend`] answers with logits, or with the hidden states that embeddings are made of. Nothing
//! above this seam knows of SIMD or packed weights, nothing below it of requests, names or HTTP. A
//! GPU is a second implementation of [`Backend`], not a rewrite.

use std::sync::Arc;
use std::time::Duration;

use crate::ready::ReadyAdapter;

/// A block of the paged KV cache, `0..Limits::blocks`. It holds keys and values of
/// [`Limits::block_tokens`] consecutive positions of one sequence, for all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// A resident adapter: what [`Backend::admit`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// What the engine wants of a run's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: a chunk of a prompt that goes on.
    None,
    /// The last row's logits only: the next token is sampled from it.
    Last,
    /// Every row's logits: prompt log-probabilities, verification.
    All,
    /// Every row's hidden state, after the model's last norm, and no logits: embeddings.
    Hidden,
}

impl Wanted {
    /// How many rows of logits `rows` rows give.
    pub fn logits(self, rows: usize) -> usize {
        match self {
            Self::None | Self::Hidden => 0,
            Self::Last => rows.min(1),
            Self::All => rows,
        }
    }

    /// How many rows of hidden states `rows` rows give.
    pub fn hidden(self, rows: usize) -> usize {
        match self {
            Self::None | Self::Last | Self::All => 0,
            Self::Hidden => rows,
        }
    }
}

/// Consecutive positions of one sequence that are computed in this step.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The tokens, one row each; never empty. A decode step has one, a prefill chunk many.
    pub tokens: &'a [u32],
    /// The position of the first of them. Positions before it are in the KV blocks already.
    pub start: usize,
    /// The sequence's block table: position p lives in `blocks[p / block_tokens]`, where
    /// `block_tokens` is [`Limits::block_tokens`]. Covers `start + tokens.len()`.
    pub blocks: &'a [BlockId],
    /// The adapter of all these rows; `None` is the base model.
    pub adapter: Option<Slot>,
    /// What the adapter's update is multiplied by, finite: 1 is as it was trained, 0 gives the
    /// base's bits. Anything else is only right if [`ReadyAdapter::unscalable`] says nothing.
    pub scale: f32,
    /// What is returned of these rows.
    pub wanted: Wanted,
}

/// One forward pass. Runs are ordered so that those of one adapter and scale are neighbours: a
/// *segment*.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// At most one run per sequence.
    pub runs: &'a [Run<'a>],
}

/// What a step gives: rows in the order of the runs, and where its time went. Kept from step to
/// step, so that memory is taken once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// `[Wanted::logits, vocab]`, row-major.
    pub logits: Vec<f32>,
    /// `[Wanted::hidden, hidden]`, row-major.
    pub hidden: Vec<f32>,
    /// Where the time went, as far as the backend measures it.
    pub time: StepTime,
}

/// What a backend can hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size of the vocabulary: the width of a row of logits.
    pub vocab: usize,
    /// The width of a row of hidden states.
    pub hidden: usize,
    /// KV blocks.
    pub blocks: usize,
    /// Positions that a block holds.
    pub block_tokens: usize,
    /// What a block takes in memory, in bytes.
    pub block_bytes: usize,
    /// How many neighbouring blocks, at least 1, are best forgotten together.
    pub extent: usize,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// The most rows that one step may have.
    pub step_rows: usize,
}

/// Why a backend could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The adapter was made ready for another base model, or for another device.
    #[error("the adapter was packed for another base model")]
    WrongBase,
    /// The device could not be started.
    #[error("the device cannot be started: {0}")]
    Start(String),
    /// The device has too little free memory.
    #[error("the device has {free} bytes of free memory, but {wanted} are needed")]
    OutOfMemory {
        /// What was needed, in bytes.
        wanted: usize,
        /// What is free, in bytes.
        free: usize,
    },
    /// The device reported a fault; later steps may succeed.
    #[error("the device reported a fault: {0}")]
    Fault(String),
    /// The device is gone: nothing more can be computed until a new backend is opened.
    #[error("the device was lost: {0}")]
    Lost(String),
}

/// Where the time of a step went, as the thread that leads it saw it. What is in none of its parts
/// is embedding, norms, activations and residuals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTime {
    /// Products with the base's weights, those of logits included.
    pub matmul: Duration,
    /// What adapters add to them.
    pub lora: Duration,
    /// Storing keys and values, and attention over them.
    pub attention: Duration,
}

/// Something that runs steps: a base model with its KV cache and its resident adapters.
pub trait Backend: Send {
    /// What it can hold.
    fn limits(&self) -> Limits;

    /// Makes an adapter resident, which the backend holds until it is released. Cheap where the
    /// device shares memory with the host: [`Base::ready`](crate::Base::ready) did the work.
    ///
    /// # Errors
    /// If the adapter was made ready for another base or device, or the device has no room for it.
    fn admit(&mut self, adapter: &Arc<ReadyAdapter>) -> Result<Slot, BackendError>;

    /// Lets an adapter go. Its slot may be handed out again.
    fn release(&mut self, slot: Slot);

    /// Makes the first `positions` positions of block `to` those of block `from`. Says whether it
    /// did; a backend that does not copy says `false`, and is asked to compute them instead.
    fn copy_block(&mut self, from: BlockId, to: BlockId, positions: usize) -> bool {
        let _ = (from, to, positions);
        false
    }

    /// What `count` blocks from `first` on hold is of no more use: a backend may give their memory
    /// back until they are written again.
    fn forget(&mut self, first: BlockId, count: usize) {
        let _ = (first, count);
    }

    /// Computes the step and writes what is wanted of it to `outputs`, whose parts are resized to
    /// fit.
    ///
    /// A row's outputs depend on its sequence's tokens and adapter alone, to the bit: not on the
    /// other runs, not on how a prompt was cut into chunks, not on the number of threads.
    ///
    /// # Errors
    /// Backends report faults of their own; a malformed step is a bug of the caller and panics.
    fn forward(&mut self, step: &Step<'_>, outputs: &mut Outputs) -> Result<(), BackendError>;
}
