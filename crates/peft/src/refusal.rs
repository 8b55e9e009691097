//! Why an adapter cannot be applied to a base.

use std::fmt;

/// What an adapter's config or a tensor says that cannot be applied. Every message names the field
/// or tensor, the value, and both sides of a disagreement.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    // The config.
    /// `adapter_config.json` is not JSON.
    #[error("it is not valid JSON: {0}")]
    NotJson(String),
    /// `adapter_config.json` is not a JSON object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// `adapter_config.json` is larger than any real config.
    #[error("it has {size} bytes, the limit is {limit}")]
    ConfigTooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The config has no `peft_type`, so it is not a PEFT config.
    #[error("it has no peft_type, so it is not the config of a PEFT adapter")]
    NoPeftType,
    /// The kind of adapter is not supported.
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
    /// A variant whose conversion to LoRA would be as large as the base's matrix.
    #[error(
        "{kind} on {module} is of rank {rank} as LoRA, but its matrix is {out}x{inp}, so the limit is {limit}: it would take as \
         much memory as the matrix (PEFT's `save_as_lora` approximates it with a smaller rank)"
    )]
    VariantRank {
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
        /// The largest rank that is supported.
        limit: usize,
    },
    /// A variant whose conversion to LoRA would have too many weights.
    #[error("as a LoRA this {kind} adapter would have more than {limit} weights")]
    VariantSize {
        /// The kind.
        kind: &'static str,
        /// The largest number of weights.
        limit: usize,
    },
    /// VeRA's shared matrices are missing.
    #[error(
        "it holds no {0}: VeRA's shared matrices were not saved, and what PyTorch draws from projection_prng_key cannot be \
         drawn here; save the adapter with `save_projection=True`"
    )]
    NoProjection(&'static str),
    /// IA³ scales the inputs of a module where that cannot be expressed as scaled outputs.
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
    /// The adapter is not for a causal language model.
    #[error("task_type is {}; only adapters for CAUSAL_LM are served", Quoted(.0))]
    TaskType(String),
    /// A field has the wrong type.
    #[error("{field} is {}, but should be {expected}", Quoted(found))]
    FieldType {
        /// The field.
        field: String,
        /// Its value as JSON.
        found: String,
        /// The expected type.
        expected: &'static str,
    },
    /// A number is out of range.
    #[error("{field} is {}; it must be {range}", Quoted(found))]
    FieldRange {
        /// The field, with the key if it is a mapping.
        field: String,
        /// Its value.
        found: String,
        /// The valid range.
        range: String,
    },
    /// A known setting is not supported.
    #[error("{field} is set ({}), which is not supported: {reason}", Quoted(found))]
    UnsupportedField {
        /// The field.
        field: String,
        /// Its value as JSON.
        found: String,
        /// What it would do.
        reason: &'static str,
    },
    /// A setting is unknown.
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
    /// A required field is missing.
    #[error("it has no {0}")]
    MissingField(&'static str),
    /// A GGUF adapter is for another architecture.
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
    /// A regular expression does not compile or takes too long.
    #[error("{field}: the pattern {} cannot be used: {reason}", Quoted(pattern))]
    Pattern {
        /// The field.
        field: &'static str,
        /// The expression.
        pattern: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// Settings contradict each other, in PEFT too.
    #[error("{0}")]
    Contradiction(&'static str),

    // Tensors and the base.
    /// The file holds no tensors.
    #[error("it holds no tensors")]
    NoTensors,
    /// No tensor belongs to a module of the base: the adapter is for another architecture.
    #[error(
        "none of its {count} tensors belongs to a module of the base (the first is {}): it was trained on another architecture",
        Quoted(first)
    )]
    NothingMaps {
        /// Number of tensors.
        count: usize,
        /// The first tensor.
        first: String,
    },
    /// All tensors have another hidden size than the base.
    #[error("it expects hidden size {found} but the base has {expected}")]
    HiddenSize {
        /// The adapter's hidden size.
        found: usize,
        /// The base's hidden size.
        expected: usize,
    },
    /// A tensor belongs to a module that the base does not have.
    #[error("tensor {} belongs to no module of the base", Quoted(.0))]
    NoModule(String),
    /// A tensor belongs to a layer that the base does not have.
    #[error(
        "tensor {} is for layer {layer}, but the base has {layers} layers, counted from 0",
        Quoted(tensor)
    )]
    NoLayer {
        /// The tensor.
        tensor: String,
        /// The layer.
        layer: usize,
        /// The base's number of layers.
        layers: usize,
    },
    /// The last part of a tensor's name is not LoRA's.
    #[error("tensor {} is not of a kind that a LoRA adapter holds", Quoted(.0))]
    UnknownPart(String),
    /// A tensor does not fit its module: one of an embedding for a linear map, or the reverse.
    #[error("tensor {} does not fit {module}, which is {kind}", Quoted(tensor))]
    WrongKind {
        /// The tensor.
        tensor: String,
        /// The module.
        module: String,
        /// The module's kind.
        kind: &'static str,
    },
    /// A module that adapters cannot change.
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
    /// Two tensors have the same role in the same module.
    #[error(
        "tensors {} and {} are both {part} of {module}",
        Quoted(first),
        Quoted(second)
    )]
    Duplicate {
        /// The tensor that was read first.
        first: String,
        /// The other tensor.
        second: String,
        /// Their role.
        part: &'static str,
        /// The module.
        module: String,
    },
    /// The file holds several adapters.
    #[error(
        "it holds tensors of two adapters, {} and {}: save them one by one",
        Quoted(first),
        Quoted(second)
    )]
    TwoAdapters {
        /// The first adapter's name.
        first: String,
        /// The second adapter's name.
        second: String,
    },
    /// The tensor is not of a float type.
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
    /// A tensor has another shape than the base requires.
    #[error(
        "tensor {} has shape {found:?} but the base needs {expected:?}",
        Quoted(tensor)
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// As in the file.
        found: Vec<usize>,
        /// According to the base, and for the rank to the config.
        expected: Vec<usize>,
    },
    /// A table is for another vocabulary.
    #[error(
        "tensor {} is for a vocabulary of {found} tokens but the base has {expected}: the adapter was trained with tokens \
         added or taken away",
        Quoted(tensor)
    )]
    Vocabulary {
        /// The tensor.
        tensor: String,
        /// Its number of rows.
        found: usize,
        /// Size of the base's vocabulary.
        expected: usize,
    },
    /// A tensor has another rank than the config says.
    #[error(
        "tensor {} has rank {found} but the config says {expected} for {module}",
        Quoted(tensor)
    )]
    RankDisagrees {
        /// The tensor.
        tensor: String,
        /// By its shape.
        found: usize,
        /// According to `r` and `rank_pattern`.
        expected: usize,
        /// The module.
        module: String,
    },
    /// The rank is far beyond the size of the matrix.
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
        /// The largest rank that is supported.
        limit: usize,
    },
    /// The scaling exceeds the range of float32.
    #[error(
        "the scaling of {module} is {scaling:e}, from lora_alpha {alpha:e} and rank {rank}: beyond float32"
    )]
    Scaling {
        /// The module.
        module: String,
        /// The scaling.
        scaling: f64,
        /// Alpha.
        alpha: f64,
        /// The rank.
        rank: usize,
    },
    /// A tensor holds NaN or infinity.
    #[error("tensor {} holds {value} (element {index})", Quoted(tensor))]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// Its position, in row-major order.
        index: usize,
    },
    /// Half of a low-rank update is missing.
    #[error("{module} has {has} but no {lacks}: the adapter was saved incompletely")]
    MissingPart {
        /// The module.
        module: String,
        /// The part that is there.
        has: &'static str,
        /// The part that is missing.
        lacks: &'static str,
    },
    /// A module lacks the tensors that the config requires.
    #[error("{field} names {module}, but there is no {lacks} for it: the adapter was saved incompletely")]
    MissingTensor {
        /// The field that requires them.
        field: &'static str,
        /// The module.
        module: String,
        /// The missing part.
        lacks: &'static str,
    },
    /// By this config, PEFT would not use the tensor.
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
    /// The adapter has a bias for a module without one.
    #[error("tensor {} is a bias, but {module} has none in the base", Quoted(tensor))]
    NoBias {
        /// The tensor.
        tensor: String,
        /// The module.
        module: String,
    },
    /// A module is changed in two ways that PEFT does not combine.
    #[error("{module} is changed by {first} and by {second} at once, which PEFT does not allow")]
    TwoWays {
        /// The module.
        module: String,
        /// A field of the config.
        first: &'static str,
        /// Another field.
        second: &'static str,
    },
    /// `modules_to_save` names a module that cannot be replaced.
    #[error(
        "modules_to_save names {}, that is {module}, which cannot be changed by an adapter here; lm_head and embed_tokens can",
        Quoted(name)
    )]
    SavedModule {
        /// The name in the config.
        name: String,
        /// A module that it matches.
        module: String,
    },
    /// `trainable_token_indices` names a module without token rows.
    #[error("trainable_token_indices names {}, which is neither the embedding nor the lm_head", Quoted(.0))]
    TokenModule(String),
    /// A token is not in the base's vocabulary.
    #[error("trainable_token_indices names token {index}, but the base's vocabulary has {vocab}")]
    TokenOutOfRange {
        /// The token.
        index: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A token is named twice.
    #[error("trainable_token_indices names token {0} twice")]
    TokenTwice(u32),
    /// The base's embeddings are tied, but the adapter holds two different tables.
    #[error(
        "it holds different matrices for embed_tokens and lm_head, but in the base they are one: it was trained on another base"
    )]
    TablesDiffer,
    /// DoRA would divide by a norm of zero.
    #[error("use_dora on {module}: a column or row of the updated table is zero, and has no direction")]
    DoraNorm {
        /// The embedding or lm_head.
        module: String,
    },
    /// DoRA on the embedding requires the base's table in the file.
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
    /// Whether the config is at fault, rather than the tensors.
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

/// Text from a file, formatted for a message: in backticks, with control characters escaped, and
/// truncated.
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
