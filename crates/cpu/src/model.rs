//! A base model in memory.

use std::sync::atomic::{AtomicU64, Ordering};

use multigraft_kernels::PackedMatrix;
use multigraft_model::{Config, LinearId};

use crate::weights::{Layer, Linear};

/// A base model's configuration and packed weights. Immutable: shared by the backends that run it
/// and by the threads that pack adapters for it.
#[derive(Debug)]
pub struct CpuBase {
    /// Identifies the base within the process: an adapter is packed for one base.
    pub(crate) id: u64,
    pub(crate) config: Config,
    pub(crate) name: String,
    /// `[vocab, hidden]`
    pub(crate) embedding: PackedMatrix,
    pub(crate) layers: Vec<Layer>,
    /// `[hidden]`
    pub(crate) norm: Vec<f32>,
    /// `[vocab, hidden]`; `None` if the lm_head is tied to the embedding.
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

    /// Memory of the packed weights, in bytes.
    pub(crate) fn packed_bytes(&self) -> usize {
        let ends = self.embedding.bytes() + self.head.as_ref().map_or(0, PackedMatrix::bytes);
        ends + self.layers.iter().map(Layer::bytes).sum::<usize>()
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
