//! The packed weights of a base model.

use multigraft_kernels::PackedMatrix;
use multigraft_model::Target;

/// A linear map `W·x + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: PackedMatrix,
    pub(crate) bias: Option<Vec<f32>>,
}

/// One of the linear maps of a [`Projection`].
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) target: Target,
    pub(crate) linear: Linear,
    /// The column of the projection's output where this map's outputs begin.
    pub(crate) at: usize,
}

/// Linear maps that share an input and write one buffer side by side: q, k and v; gate and up; or
/// one alone.
#[derive(Debug)]
pub(crate) struct Projection {
    pub(crate) parts: Vec<Part>,
    /// Columns of the buffer.
    pub(crate) width: usize,
}

/// A routed expert.
#[derive(Debug)]
pub(crate) struct Expert {
    pub(crate) gate: PackedMatrix,
    pub(crate) up: PackedMatrix,
    pub(crate) down: PackedMatrix,
}

/// A layer's feed-forward network.
#[derive(Debug)]
pub(crate) enum Ffn {
    Dense {
        gate_up: Projection,
        down: Projection,
    },
    Experts {
        router: PackedMatrix,
        experts: Vec<Expert>,
        active: usize,
        width: usize,
        normalise: bool,
    },
}

/// Norm weights, `[hidden]` (of queries and keys: see [`multigraft_model::config::QkNorm`]). Those
/// that an architecture does not have are `None`.
#[derive(Debug)]
pub(crate) struct Norms {
    pub(crate) before_attention: Option<Vec<f32>>,
    pub(crate) after_attention: Option<Vec<f32>>,
    pub(crate) before_ffn: Option<Vec<f32>>,
    pub(crate) after_ffn: Option<Vec<f32>>,
    pub(crate) query: Option<Vec<f32>>,
    pub(crate) key: Option<Vec<f32>>,
}

/// A decoder layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) norms: Norms,
    pub(crate) qkv: Projection,
    pub(crate) o: Projection,
    pub(crate) ffn: Ffn,
}

impl Projection {
    pub(crate) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.linear.weight.bytes()).sum()
    }
}

impl Layer {
    pub(crate) fn bytes(&self) -> usize {
        let ffn = match &self.ffn {
            Ffn::Dense { gate_up, down } => gate_up.bytes() + down.bytes(),
            Ffn::Experts { router, experts, .. } => {
                let expert = |e: &Expert| e.gate.bytes() + e.up.bytes() + e.down.bytes();
                router.bytes() + experts.iter().map(expert).sum::<usize>()
            }
        };
        self.qkv.bytes() + self.o.bytes() + ffn
    }

    /// The linear map of a target, if the layer has it.
    pub(crate) fn linear(&self, target: Target) -> Option<&Linear> {
        let ffn = match &self.ffn {
            Ffn::Dense { gate_up, down } => gate_up.parts.iter().chain(&down.parts),
            Ffn::Experts { .. } => [].iter().chain(&[]),
        };
        let mut parts = self.qkv.parts.iter().chain(&self.o.parts).chain(ffn);
        parts.find(|part| part.target == target).map(|part| &part.linear)
    }
}
