//! What an adapter changes, as plain numbers: the form between the files of any format and the
//! weights that a device computes with.
//!
//! The crate `peft` parses files into an [`AdapterWeights`] and checks it against
//! [`crate::Config`]; [`Base::ready`](crate::Base::ready) makes a
//! [`ReadyAdapter`](crate::ReadyAdapter) of it.

use std::fmt;

/// A dense matrix in float32, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// `[rows, cols]`.
    pub values: Vec<f32>,
}

/// SHA-256 over an adapter's files: the identity of an adapter, to which names point.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterHash(pub [u8; 32]);

impl fmt::Display for AdapterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl AdapterHash {
    /// Parses 64 hexadecimal digits; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
            *byte = u8::try_from(high? * 16 + low?).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Debug for AdapterHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A linear map inside a decoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Query projection.
    Q,
    /// Key projection.
    K,
    /// Value projection.
    V,
    /// Query, key and value in one matrix (phi3).
    Qkv,
    /// Attention's output projection.
    O,
    /// Gate projection of the feed-forward network.
    Gate,
    /// Up projection.
    Up,
    /// Gate and up in one matrix (phi3).
    GateUp,
    /// Down projection.
    Down,
}

/// A linear map of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinearId {
    /// Of decoder layer `layer`, counted from 0.
    Layer {
        /// Which layer.
        layer: usize,
        /// Which map of it.
        target: Target,
    },
    /// The map from hidden states to logits.
    LmHead,
}

/// A low-rank update: `y += scaling · (B·(A·x) + bias)`. LoRA, Hu et al. 2021, arXiv 2106.09685.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// `[rank, in]`.
    pub a: Matrix,
    /// `[out, rank]`.
    pub b: Matrix,
    /// alpha/r, or alpha/√r with rsLoRA.
    pub scaling: f32,
    /// `lora_B.bias`, `[out]`, if trained with `lora_bias`.
    pub bias: Option<Vec<f32>>,
    /// A scaling for each rank instead of `scaling`, `[rank]`, where several updates are stacked
    /// into one. The bias is multiplied by `scaling` even then.
    pub stacked: Option<Vec<f32>>,
}

impl LowRank {
    /// The scaling of each rank, `[rank]`.
    pub fn scalings(&self) -> Vec<f32> {
        let same = || vec![self.scaling; self.a.rows];
        self.stacked.clone().unwrap_or_else(same)
    }
}

/// What an adapter does to one linear map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LinearDelta {
    /// The low-rank update.
    pub low_rank: Option<LowRank>,
    /// DoRA's magnitude `m`, `[out]` (Liu et al. 2024, arXiv 2402.09353): with W the base's weight,
    /// `y = m/‖W + s·B·A‖ · (W·x + s·B·A·x) + bias`, the norm taken over each output's row.
    pub magnitude: Option<Vec<f32>>,
    /// Replaces the base's bias (PEFT's `bias` = `all` or `lora_only`), `[out]`.
    pub base_bias: Option<Vec<f32>>,
    /// Factors of all outputs, `[out]` (IA³, Liu et al. 2022, arXiv 2205.05638): `gain ∘ y`, where
    /// y is the output after all other changes, the bias included.
    pub gain: Option<Vec<f32>>,
    /// Replaces the base's weight (PEFT's `modules_to_save`; the lm_head only), `[out, in]`.
    pub replaced: Option<Matrix>,
    /// Rows of the base's weight that are replaced: trained tokens where the lm_head is tied to the
    /// embedding.
    pub rows: Vec<(u32, Vec<f32>)>,
}

impl LinearDelta {
    /// Whether applying it requires a bias.
    pub fn adds_bias(&self) -> bool {
        let has_update_bias = self.low_rank.as_ref().is_some_and(|update| update.bias.is_some());
        self.base_bias.is_some() || has_update_bias
    }
}

/// What an adapter does to the token embedding.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingDelta {
    /// `embedding(t) += scaling · B·A[:, t]`, with A `[rank, vocab]` and B `[hidden, rank]`.
    pub low_rank: Option<LowRank>,
    /// Replaces the whole table, `[vocab, hidden]`.
    pub replaced: Option<Matrix>,
    /// Replaces single rows (PEFT's trainable tokens): token id and its row `[hidden]`.
    pub rows: Vec<(u32, Vec<f32>)>,
}

/// A whole adapter, its shapes checked against the base it is for.
#[derive(Clone, Debug)]
pub struct AdapterWeights {
    /// Hash of the files it was read from.
    pub hash: AdapterHash,
    /// Changes of linear maps, each map at most once, ordered by [`LinearId`].
    pub linears: Vec<(LinearId, LinearDelta)>,
    /// Change of the token embedding.
    pub embedding: Option<EmbeddingDelta>,
    /// Activated LoRA (Greenewald et al. 2025, arXiv 2504.12397): the adapter applies from where
    /// these tokens last begin in the prompt. Empty for an adapter that applies to every position.
    pub invocation: Vec<u32>,
}
