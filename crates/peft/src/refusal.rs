//! Why an adapter is not taken: what its config or a tensor says that cannot be applied to this
//! base.

use std::fmt;

/// What is wrong in an adapter. Every message names the field or tensor, the value, and both sides
/// of a disagreement.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    // The config by itself.
    /// `adapter_config.json` does not parse.
    #[error("it is not valid JSON: {0}")]
    NotJson(String),
    /// `adapter_config.json` is JSON, but no object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// `adapter_config.json` is larger than any real one.
    #[error("it has {size} bytes, the limit is {limit}")]
    ConfigTooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// No `peft_type`: not a PEFT config.
    #[error("it has no peft_type, so it is not the config of a PEFT adapter")]
    NoPeftType,
    /// A kind of adapter that is not served.
    #[error(
        "peft_type is {}, which is not served: {reason} (PEFT's `save_as_lora` turns many kinds into LoRA)",
        Quoted(found)
    )]
    PeftType {
        /// The kind.
        found: String,
        /// Why not.
        reason: &'static str,
    },
    /// An adapter of another kind whose LoRA would be as large as the base's matrix, or larger.
    #[error(
        "{kind} on {module} is of rank {rank} as LoRA, but its matrix is {out}x{inp}, so the limit is {limit}: it would take as \
         much memory as the matrix (PEFT's `save_as_lora` approximates it with a smaller rank)"
    )]
    RelativeRank {
        /// The kind.
        kind: &'static str,
        /// The module.
        module: String,
        /// The rank.
        rank: usize,
        /// Rows of the base's matrix.
        out: usize,
        /// Columns of the base's matrix.
        inp: usize,
        /// The largest rank that is taken.
        limit: usize,
    },
    /// A relative that becomes far more than it is.
    #[error("as a LoRA this {kind} adapter would have more than {limit} weights")]
    RelativeSize {
        /// The kind.
        kind: &'static str,
        /// The most weights that are taken.
        limit: usize,
    },
    /// VeRA without its shared matrices.
    #[error(
        "it holds no {0}: VeRA's shared matrices were not saved, and what PyTorch draws from projection_prng_key cannot be \
         drawn here; save the adapter with `save_projection=True`"
    )]
    NoProjection(&'static str),
    /// IA³ on the inputs of a module for which no outputs can be scaled in their place.
    #[error(
        "tensor {} scales the inputs of {module}; of inputs only those of down_proj can be scaled here",
        Quoted(tensor)
    )]
    ScaledInputs {
        /// The tensor.
        tensor: String,
        /// The module.
        module: String,
    },
    /// An adapter for a model that is no language model.
    #[error("task_type is {}; only adapters for CAUSAL_LM are served", Quoted(.0))]
    TaskType(String),
    /// A field of another type than PEFT writes.
    #[error("{field} is {}, but should be {expected}", Quoted(found))]
    FieldType {
        /// The field.
        field: String,
        /// Its value as JSON.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A number that is out of range.
    #[error("{field} is {}; it must be {range}", Quoted(found))]
    FieldRange {
        /// The field, with the entry's key if it is a mapping.
        field: String,
        /// Its value.
        found: String,
        /// What is allowed.
        range: String,
    },
    /// A setting of PEFT that is known and not applied.
    #[error("{field} is set ({}), which is not supported: {reason}", Quoted(found))]
    UnsupportedField {
        /// The field.
        field: String,
        /// Its value as JSON.
        found: String,
        /// What it would do.
        reason: &'static str,
    },
    /// A setting that nobody here knows.
    #[error(
        "{} is set ({}), which multigraft does not know, so it cannot promise the answers that PEFT gives",
        Quoted(field),
        Quoted(found)
    )]
    UnknownField {
        /// The field.
        field: String,
        /// Its value as JSON.
        found: String,
    },
    /// A field that must be there.
    #[error("it has no {0}")]
    MissingField(&'static str),
    /// A GGUF adapter for another architecture.
    #[error(
        "it is for the architecture {} but the base is {}",
        Quoted(found),
        Quoted(base)
    )]
    Architecture {
        /// `general.architecture` in the file.
        found: String,
        /// GGUF's name of the base's architecture.
        base: String,
    },
    /// A regular expression that does not compile or takes too long.
    #[error("{field}: the pattern {} cannot be used: {reason}", Quoted(pattern))]
    Pattern {
        /// The field it is in.
        field: &'static str,
        /// The expression.
        pattern: String,
        /// Why.
        reason: String,
    },
    /// Settings that exclude each other, also in PEFT.
    #[error("{0}")]
    Contradiction(&'static str),

    // Tensors and the base.
    /// The file of tensors is empty.
    #[error("it holds no tensors")]
    NoTensors,
    /// An adapter for another architecture.
    #[error(
        "none of its {count} tensors belongs to a module of the base (the first is {}): it was trained on another architecture",
        Quoted(first)
    )]
    NothingMaps {
        /// How many there are.
        count: usize,
        /// The first one.
        first: String,
    },
    /// Every tensor disagrees with the base about the hidden size.
    #[error("it expects hidden size {found} but the base has {expected}")]
    HiddenSize {
        /// Of the adapter.
        found: usize,
        /// Of the base.
        expected: usize,
    },
    /// A tensor for a module that the base does not have.
    #[error("tensor {} belongs to no module of the base", Quoted(.0))]
    NoModule(String),
    /// A tensor for a layer that the base does not have.
    #[error(
        "tensor {} is for layer {layer}, but the base has {layers} layers, counted from 0",
        Quoted(tensor)
    )]
    NoLayer {
        /// The tensor.
        tensor: String,
        /// The layer it names.
        layer: usize,
        /// How many the base has.
        layers: usize,
    },
    /// A tensor whose last part means nothing in LoRA.
    #[error("tensor {} is not of a kind that a LoRA adapter holds", Quoted(.0))]
    UnknownPart(String),
    /// A tensor of a kind that does not go with its module: an embedding's for a linear map or the
    /// reverse.
    #[error("tensor {} does not fit {module}, which is {kind}", Quoted(tensor))]
    WrongKind {
        /// The tensor.
        tensor: String,
        /// The module.
        module: String,
        /// What it is.
        kind: &'static str,
    },
    /// A module that no adapter can change here.
    #[error(
        "tensor {} changes {module}, which cannot be changed by an adapter here",
        Quoted(tensor)
    )]
    Fixed {
        /// The tensor.
        tensor: String,
        /// The module.
        module: String,
    },
    /// Two names for one thing.
    #[error(
        "tensors {} and {} are both {part} of {module}",
        Quoted(first),
        Quoted(second)
    )]
    Duplicate {
        /// The one read first.
        first: String,
        /// The other.
        second: String,
        /// What both are.
        part: &'static str,
        /// The module.
        module: String,
    },
    /// Several adapters in one file.
    #[error(
        "it holds tensors of two adapters, {} and {}: save them one by one",
        Quoted(first),
        Quoted(second)
    )]
    TwoAdapters {
        /// A name inside the tensors' names.
        first: String,
        /// Another.
        second: String,
    },
    /// Weights that are not floats.
    #[error(
        "tensor {} has dtype {}; adapters must be F32, F16 or BF16",
        Quoted(tensor),
        Quoted(dtype)
    )]
    Dtype {
        /// The tensor.
        tensor: String,
        /// As in the file.
        dtype: String,
    },
    /// A tensor of another shape than the base demands.
    #[error(
        "tensor {} has shape {found:?} but the base needs {expected:?}",
        Quoted(tensor)
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// As in the file.
        found: Vec<usize>,
        /// By the base, with the rank by the config.
        expected: Vec<usize>,
    },
    /// A table for another vocabulary.
    #[error(
        "tensor {} is for a vocabulary of {found} tokens but the base has {expected}: the adapter was trained with tokens \
         added or taken away",
        Quoted(tensor)
    )]
    Vocabulary {
        /// The tensor.
        tensor: String,
        /// Its rows.
        found: usize,
        /// Size of the base's vocabulary.
        expected: usize,
    },
    /// A tensor of another rank than the config says.
    #[error(
        "tensor {} has rank {found} but the config says {expected} for {module}",
        Quoted(tensor)
    )]
    RankDisagrees {
        /// The tensor.
        tensor: String,
        /// By its shape.
        found: usize,
        /// By `r` and `rank_pattern`.
        expected: usize,
        /// The module.
        module: String,
    },
    /// A rank far beyond the size of the matrix.
    #[error("rank {rank} for {module} is absurd: its matrix is {out}x{inp}, and the limit is {limit}")]
    AbsurdRank {
        /// The rank.
        rank: usize,
        /// The module.
        module: String,
        /// Rows of the base's matrix.
        out: usize,
        /// Columns of the base's matrix.
        inp: usize,
        /// The largest rank that is taken.
        limit: usize,
    },
    /// A scaling that float32 cannot hold.
    #[error(
        "the scaling of {module} is {scaling:e}, from lora_alpha {alpha:e} and rank {rank}: beyond float32"
    )]
    Scaling {
        /// The module.
        module: String,
        /// The result.
        scaling: f64,
        /// Alpha.
        alpha: f64,
        /// The rank.
        rank: usize,
    },
    /// NaN or infinity.
    #[error("tensor {} holds {value} (element {index})", Quoted(tensor))]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// What it holds.
        value: f32,
        /// Where, in row-major order.
        index: usize,
    },
    /// Half of a low-rank update.
    #[error("{module} has {has} but no {lacks}: the adapter was saved incompletely")]
    MissingPart {
        /// The module.
        module: String,
        /// What is there.
        has: &'static str,
        /// What is not.
        lacks: &'static str,
    },
    /// A module that should have tensors and has none.
    #[error("{field} names {module}, but there is no {lacks} for it: the adapter was saved incompletely")]
    MissingTensor {
        /// The field that demands it.
        field: &'static str,
        /// The module.
        module: String,
        /// What is missing.
        lacks: &'static str,
    },
    /// A tensor that PEFT would not use by this config.
    #[error(
        "tensor {} is there although {field} in the config does not ask for it",
        Quoted(tensor)
    )]
    NotAskedFor {
        /// The tensor.
        tensor: String,
        /// The field that should name it.
        field: &'static str,
    },
    /// A bias where the base has none.
    #[error("tensor {} is a bias, but {module} has none in the base", Quoted(tensor))]
    NoBias {
        /// The tensor.
        tensor: String,
        /// The module.
        module: String,
    },
    /// A module changed in two ways that exclude each other.
    #[error("{module} is changed by {first} and by {second} at once, which PEFT does not allow")]
    TwoWays {
        /// The module.
        module: String,
        /// A field of the config.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// `modules_to_save` names something that cannot be replaced.
    #[error(
        "modules_to_save names {}, that is {module}, which cannot be changed by an adapter here; lm_head and embed_tokens can",
        Quoted(name)
    )]
    SavedModule {
        /// As in the config.
        name: String,
        /// A module that it means.
        module: String,
    },
    /// `trainable_token_indices` names something that has no token rows.
    #[error("trainable_token_indices names {}, which is neither the embedding nor the lm_head", Quoted(.0))]
    TokenModule(String),
    /// A token that the base does not have.
    #[error("trainable_token_indices names token {index}, but the base's vocabulary has {vocab}")]
    TokenOutOfRange {
        /// The token.
        index: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// The same token twice.
    #[error("trainable_token_indices names token {0} twice")]
    TokenTwice(u32),
    /// Embedding and lm_head are one matrix in the base and two different ones in the adapter.
    #[error(
        "it holds different matrices for embed_tokens and lm_head, but in the base they are one: it was trained on another base"
    )]
    TablesDiffer,
    /// DoRA divides by zero.
    #[error("use_dora on {module}: a column or row of the updated table is zero, and has no direction")]
    DoraNorm {
        /// The embedding or lm_head.
        module: String,
    },
    /// DoRA on the embedding needs the embedding.
    #[error(
        "use_dora on {module} needs the base's table in the file ({module}.base_layer.weight): save the adapter with PEFT's \
         `save_pretrained(…, save_embedding_layers=True)`"
    )]
    DoraNeedsTable {
        /// The embedding.
        module: String,
    },
}

impl Refusal {
    /// Whether the config alone is to blame, rather than the tensors.
    pub(crate) fn blames_config(&self) -> bool {
        matches!(
            self,
            Self::Pattern { .. }
                | Self::Contradiction(_)
                | Self::Scaling { .. }
                | Self::SavedModule { .. }
                | Self::TokenModule(_)
                | Self::TokenOutOfRange { .. }
                | Self::TokenTwice(_)
        )
    }
}

/// Text from a file as a message may show it: in backticks, control characters escaped, cut to a
/// sane length.
#[derive(Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        f.write_str("`")?;
        for c in self.0.chars().take(SHOWN) {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        if self.0.chars().nth(SHOWN).is_some() {
            f.write_str("…")?;
        }
        f.write_str("`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_files_is_escaped_and_cut() {
        assert_eq!(Quoted("a\nb\u{1b}[0m").to_string(), "`a\\nb\\u{1b}[0m`");
        assert_eq!(
            Quoted(&"é".repeat(500)).to_string(),
            format!("`{}…`", "é".repeat(120))
        );
    }
}
