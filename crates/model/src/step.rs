//! The seam between the engine and compute: one forward pass over the rows of many sequences.
//!
//! The engine says which tokens to compute, at which positions, under which adapter, and in which
//! KV blocks. A [`Backend`] answers with logits, or with the hidden states that embeddings are made
//! of. Code above this seam knows nothing of SIMD or packed weights; code below it knows nothing of
//! requests, names or HTTP. A GPU is a second implementation of [`Backend`].

use std::sync::Arc;
use std::time::Duration;

use crate::ready::ReadyAdapter;

/// A block of the paged KV cache, `0..Limits::blocks`. It holds keys and values of
/// [`Limits::block_tokens`] consecutive positions of one sequence, for all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// A resident adapter, as [`Backend::admit`] returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Which outputs of a run's rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: a chunk of a prompt that has further chunks.
    None,
    /// The last row's logits, from which the next token is sampled.
    Last,
    /// Every row's logits, for the prompt's log-probabilities and for verification.
    All,
    /// Every row's hidden state after the model's last norm, and no logits, for embeddings.
    Hidden,
}

impl Wanted {
    /// How many rows of logits a run of `rows` rows gives.
    pub fn logits(self, rows: usize) -> usize {
        match self {
            Self::None | Self::Hidden => 0,
            Self::Last => rows.min(1),
            Self::All => rows,
        }
    }

    /// How many rows of hidden states a run of `rows` rows gives.
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
    /// The tokens, one row each; never empty. A decoding sequence has one, a prefill chunk several.
    pub tokens: &'a [u32],
    /// The position of the first token. Earlier positions are in the KV blocks already.
    pub start: usize,
    /// The sequence's block table: position p lives in `blocks[p / block_tokens]`, where
    /// `block_tokens` is [`Limits::block_tokens`]. Covers `start + tokens.len()`.
    pub blocks: &'a [BlockId],
    /// The adapter of all rows of the run; `None` is the base model.
    pub adapter: Option<Slot>,
    /// The factor of the adapter's update, finite: 1 applies it as trained, 0 gives the base's
    /// bits. Other values require that [`ReadyAdapter::unscalable`] is `None`.
    pub scale: f32,
    /// The outputs to return.
    pub wanted: Wanted,
}

/// One forward pass. The runs of one adapter and scale are neighbours; together they are a
/// *segment*.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// At most one run per sequence.
    pub runs: &'a [Run<'a>],
}

/// The outputs of a step, in the order of its runs, and where its time went. Callers keep the value
/// from step to step, so that its memory is allocated once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    /// `[Wanted::logits, vocab]`, row-major.
    pub logits: Vec<f32>,
    /// `[Wanted::hidden, hidden]`, row-major.
    pub hidden: Vec<f32>,
    /// Where the time went, as far as the backend measures this.
    pub time: StepTime,
}

/// What a backend can hold and compute.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size of the vocabulary, which is the width of a row of logits.
    pub vocab: usize,
    /// The width of a row of hidden states.
    pub hidden: usize,
    /// Capacity of the KV cache, in blocks.
    pub blocks: usize,
    /// Positions that a block holds.
    pub block_tokens: usize,
    /// Memory of a block, for all layers, in bytes.
    pub block_bytes: usize,
    /// How many neighbouring blocks, at least 1, are best given to [`Backend::forget`] together.
    pub extent: usize,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// The most rows that one step may have.
    pub step_rows: usize,
}

/// Why a backend could not be opened, admit an adapter, or compute a step.
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

/// Where the time of a step went, as measured by the thread that calls [`Backend::forward`]. The
/// rest of the step is embedding, norms, activations and residuals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepTime {
    /// Products with the base's weights, including those that give logits.
    pub matmul: Duration,
    /// The adapters' changes to these products.
    pub lora: Duration,
    /// Storing keys and values, and attention over them.
    pub attention: Duration,
}

/// A base model with a KV cache and resident adapters, which runs steps.
pub trait Backend: Send {
    /// What it can hold and compute.
    fn limits(&self) -> Limits;

    /// Makes an adapter resident, which the backend holds until it is released. Cheap where the
    /// device shares memory with the host: [`Base::ready`](crate::Base::ready) did the work.
    ///
    /// # Errors
    /// If the adapter was made ready for another base or device, or the device has no room for it.
    fn admit(&mut self, adapter: &Arc<ReadyAdapter>) -> Result<Slot, BackendError>;

    /// Releases an adapter. A later [`Backend::admit`] may return the same slot.
    fn release(&mut self, slot: Slot);

    /// Copies the first `positions` positions of block `from` to block `to`. A backend that cannot
    /// copy returns `false`, and is asked to compute the positions instead.
    fn copy_block(&mut self, from: BlockId, to: BlockId, positions: usize) -> bool {
        let _ = (from, to, positions);
        false
    }

    /// Marks the contents of `count` blocks from `first` on as disposable: the backend may give
    /// their memory back to the system until they are written again.
    fn forget(&mut self, first: BlockId, count: usize) {
        let _ = (first, count);
    }

    /// Computes the step and writes the wanted outputs to `outputs`, whose vectors are resized to
    /// fit.
    ///
    /// A row's outputs depend on its sequence's tokens and adapter alone, to the bit: not on the
    /// other runs, not on how a prompt was cut into chunks, not on the number of threads.
    ///
    /// # Errors
    /// If the device fails. A malformed step is a bug of the caller and panics.
    fn forward(&mut self, step: &Step<'_>, outputs: &mut Outputs) -> Result<(), BackendError>;
}
