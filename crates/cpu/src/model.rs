//! A base model in memory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use multigraft_kernels::PackedMatrix;

use crate::adapter::PackedAdapter;
use crate::config::Config;
use crate::delta::{AdapterWeights, LinearId};
use crate::error::ModelError;
use crate::load::{self, LoadOptions};
use crate::weights::{Layer, Linear};

pub use multigraft_kernels::LoraDtype as AdapterDtype;

/// A base model's configuration and packed weights. Immutable: shared by the backend that runs it
/// and by those who pack adapters for it.
#[derive(Debug)]
pub struct Model {
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

impl Model {
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

    /// What kind of decoder it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The name that its files give it, or the name of the file or folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Memory of the packed weights, in bytes.
    pub fn bytes(&self) -> usize {
        let ends = self.embedding.bytes() + self.head.as_ref().map_or(0, PackedMatrix::bytes);
        ends + self.layers.iter().map(Layer::bytes).sum::<usize>()
    }

    /// The longest sequence that is served unless another is asked for: what the model was made
    /// for, but for models whose rotation differs in long sequences (longrope), where it is the
    /// longest that needs no stretch.
    pub fn default_context(&self) -> usize {
        let rope = self
            .config
            .ropes
            .iter()
            .filter(|rope| rope.long_inv_freq.is_some());
        rope.map(|rope| rope.short_context)
            .fold(self.config.context, usize::min)
    }

    /// Packs an adapter for this model. Takes time (DoRA: a pass over the base's weights); any
    /// thread may do it.
    ///
    /// # Errors
    /// If the adapter changes a map that this model does not have, or in another shape.
    pub fn pack(&self, weights: &AdapterWeights, dtype: AdapterDtype) -> Result<PackedAdapter, ModelError> {
        PackedAdapter::new(self, weights, dtype)
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
