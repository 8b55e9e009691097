//! A base model on some device: what the rest of the program knows of the device's own weights.

use std::fmt;
use std::sync::Arc;

use multigraft_kernels::{KvDtype, LoraDtype};

use crate::config::Config;
use crate::delta::AdapterWeights;
use crate::error::ModelError;
use crate::ready::ReadyAdapter;
use crate::step::{Backend, BackendError};
use crate::throttle::Throttle;

/// A base model whose weights are ready for a device. Immutable: shared by the backends that run it
/// and by the threads that make adapters ready for it.
pub trait Base: fmt::Debug + Send + Sync {
    /// What kind of decoder it is.
    fn config(&self) -> &Config;

    /// The name that its files give it, or the name of the file or folder.
    fn name(&self) -> &str;

    /// Memory of its weights, in bytes.
    fn bytes(&self) -> usize;

    /// How its backends cut the KV cache into blocks.
    fn kv_block(&self, dtype: KvDtype) -> KvBlock;

    /// Memory that an adapter takes once it is ready, in bytes: [`ReadyAdapter::bytes`] before any
    /// of it is taken.
    fn ready_bytes(&self, weights: &AdapterWeights, dtype: LoraDtype) -> usize;

    /// Makes an adapter ready for this base. It takes time (DoRA: a pass over the base's weights)
    /// and pauses as `throttle` says; any thread may do it.
    ///
    /// # Errors
    /// If the adapter changes a map that this base does not have, or in another shape.
    fn ready(
        &self,
        weights: &AdapterWeights,
        dtype: LoraDtype,
        throttle: &Throttle,
    ) -> Result<ReadyAdapter, ModelError>;

    /// Opens a backend, with a KV cache of its own.
    ///
    /// # Errors
    /// If the device cannot be started or has too little memory.
    fn backend(self: Arc<Self>, options: BackendOptions) -> Result<Box<dyn Backend>, BackendError>;
}

/// A block of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvBlock {
    /// Positions that one holds.
    pub tokens: usize,
    /// Memory of one, for all layers, in bytes.
    pub bytes: usize,
    /// How many neighbouring blocks, at least 1, are best given back to the system together.
    pub extent: usize,
}

/// How a backend is set up.
#[derive(Clone, Debug)]
pub struct BackendOptions {
    /// Processor threads that compute, the caller's own included.
    pub threads: usize,
    /// KV blocks of [`KvBlock::tokens`] positions each.
    pub blocks: usize,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// The most rows of a step.
    pub step_rows: usize,
    /// How keys and values are stored.
    pub kv_dtype: KvDtype,
    /// Pauses within a step, for one that computes beside a server's steps. Never pauses by
    /// default.
    pub throttle: Throttle,
}
