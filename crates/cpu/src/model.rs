//! A base model in memory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use multigraft_kernels::PackedMatrix;
use multigraft_model::{
    AdapterDtype, AdapterWeights, Backend, BackendError, BackendOptions, Base, Config, KvBlock, KvDtype,
    LinearId, ModelError, ReadyAdapter, Throttle,
};

use crate::adapter::PackedAdapter;
use crate::backend::{CpuBackend, kv_block};
use crate::load::{self, LoadOptions};
use crate::weights::{Layer, Linear};

/// A base model's configuration and packed weights. Immutable: shared by the backends that run it
/// and by the threads that pack adapters for it.
#[derive(Debug)]
pub struct CpuBase {
    /// Distinguishes models of one process: an adapter is packed for one of them.
    pub(crate) id: u64,
    pub(crate) config: Config,
    name: String,
    /// `[vocab, hidden]`
    pub(crate) embedding: PackedMatrix,
    pub(crate) layers: Vec<Layer>,
    /// `[hidden]`
    pub(crate) norm: Vec<f32>,
    /// `[vocab, hidden]`; `None` where it is the embedding.
    head: Option<PackedMatrix>,
}

impl CpuBase {
    pub(crate) fn new(
        config: Config,
        name: String,
        embedding: PackedMatrix,
        layers: Vec<Layer>,
        norm: Vec<f32>,
        head: Option<PackedMatrix>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            config,
            name,
            embedding,
            layers,
            norm,
            head,
        }
    }

    /// Opens a GGUF file or a Hugging Face folder and packs its weights.
    ///
    /// # Errors
    /// If the files are unreadable or malformed, lack tensors, or are of an architecture or storage
    /// type that is not supported; the error names which.
    pub fn open(path: &Path, options: &LoadOptions<'_>) -> Result<Self, ModelError> {
        load::load(path, *options)
    }

    /// The matrix from hidden states to logits.
    pub(crate) fn head(&self) -> &PackedMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Weight and bias of a linear map.
    pub(crate) fn linear(&self, id: LinearId) -> Option<(&PackedMatrix, Option<&[f32]>)> {
        match id {
            LinearId::LmHead => Some((self.head(), None)),
            LinearId::Layer { layer, target } => {
                let Linear { weight, bias } = self.layers.get(layer)?.linear(target)?;
                Some((weight, bias.as_deref()))
            }
        }
    }
}

impl Base for CpuBase {
    fn config(&self) -> &Config {
        &self.config
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> usize {
        let ends = self.embedding.bytes() + self.head.as_ref().map_or(0, PackedMatrix::bytes);
        ends + self.layers.iter().map(Layer::bytes).sum::<usize>()
    }

    fn kv_block(&self, dtype: KvDtype) -> KvBlock {
        kv_block(&self.config, dtype)
    }

    fn ready_bytes(&self, weights: &AdapterWeights, dtype: AdapterDtype) -> usize {
        self.packed_bytes(weights, dtype)
    }

    fn ready(
        &self,
        weights: &AdapterWeights,
        dtype: AdapterDtype,
        throttle: &Throttle,
    ) -> Result<ReadyAdapter, ModelError> {
        let packed = PackedAdapter::new(self, weights, dtype, throttle)?;
        let (bytes, unscalable) = (packed.bytes(), packed.unscalable());
        Ok(ReadyAdapter::new(weights.hash, bytes, Arc::new(packed))
            .invoked_by(&weights.invocation)
            .with_unscalable(unscalable))
    }

    fn backend(self: Arc<Self>, options: BackendOptions) -> Result<Box<dyn Backend>, BackendError> {
        Ok(Box::new(CpuBackend::new(self, options)))
    }
}
