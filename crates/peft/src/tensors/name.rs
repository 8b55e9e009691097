//! Parses the names of an adapter's tensors.

use multigraft_model::ModuleKind;

use crate::base::module_key;

/// The role of a tensor in its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// A of a linear map, `[rank, in]`.
    A,
    /// B of a linear map, `[out, rank]`.
    B,
    /// The bias of B, `[out]`.
    LoraBias,
    /// A of an embedding, `[rank, vocab]`.
    EmbeddingA,
    /// B of an embedding, `[hidden, rank]`.
    EmbeddingB,
    /// DoRA's magnitude, `[out]`; of an embedding, `[hidden]`.
    Magnitude,
    /// A bias that replaces the base's, `[out]`.
    Bias,
    /// A weight that replaces the base's, from `modules_to_save`, `[out, in]`.
    Saved,
    /// A weight with the base's own name: a copy that PEFT saves beside updates of embeddings. The
    /// name alone does not distinguish it from [`Part::Saved`].
    BaseWeight,
    /// Trained rows of a table, `[tokens, hidden]`.
    TokenRows,
    /// IA³'s scales of outputs, `[out, 1]`, or of inputs, `[1, in]`.
    Scale,
}

impl Part {
    /// PEFT's name of the part.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::A => "lora_A",
            Self::B => "lora_B",
            Self::LoraBias => "lora_B.bias",
            Self::EmbeddingA => "lora_embedding_A",
            Self::EmbeddingB => "lora_embedding_B",
            Self::Magnitude => "lora_magnitude_vector",
            Self::Bias => "bias",
            Self::Saved => "saved weight",
            Self::BaseWeight => "weight",
            Self::TokenRows => "trainable_tokens_delta",
            Self::Scale => "ia3_l",
        }
    }
}

/// A parsed tensor name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TensorName<'a> {
    /// The prefix before the module's key, see [`module_key`].
    pub(crate) wrappers: &'a str,
    /// The module's key.
    pub(crate) key: &'a str,
    /// The tensor's role.
    pub(crate) part: Part,
    /// The adapter's name inside PEFT. Names contain it if the file was not saved by
    /// `save_pretrained`.
    pub(crate) adapter: Option<&'a str>,
}

impl<'a> TensorName<'a> {
    /// Parses a name. `None` if it does not end as PEFT's names of LoRA tensors do.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        let (path, part, adapter) = split(name)?;
        let (wrappers, key) = module_key(path);
        Some(Self {
            wrappers,
            key,
            part,
            adapter,
        })
    }
}

/// Splits a name into module path, part and adapter name.
fn split(name: &str) -> Option<(&str, Part, Option<&str>)> {
    const MARKERS: [&str; 9] = [
        "lora_A",
        "lora_B",
        "lora_embedding_A",
        "lora_embedding_B",
        "lora_magnitude_vector",
        "token_adapter",
        "modules_to_save",
        "base_layer",
        "ia3_l",
    ];
    let mut start = 0;
    for segment in name.split('.') {
        if start > 0 && MARKERS.contains(&segment) {
            let tail: Vec<&str> = name[start + segment.len()..].split('.').skip(1).collect();
            let (part, adapter) = part(segment, &tail)?;
            return Some((&name[..start - 1], part, adapter));
        }
        start += segment.len() + 1;
    }
    let (path, last) = name.rsplit_once('.')?;
    match last {
        "weight" => Some((path, Part::BaseWeight, None)),
        "bias" => Some((path, Part::Bias, None)),
        _ => None,
    }
}

/// The part and the adapter's name, from PEFT's marker and the segments after it.
fn part<'a>(marker: &str, tail: &[&'a str]) -> Option<(Part, Option<&'a str>)> {
    Some(match (marker, tail) {
        ("lora_A", ["weight"]) => (Part::A, None),
        ("lora_A", [adapter, "weight"]) => (Part::A, Some(adapter)),
        ("lora_B", ["weight"]) => (Part::B, None),
        ("lora_B", [adapter, "weight"]) => (Part::B, Some(adapter)),
        ("lora_B", ["bias"]) => (Part::LoraBias, None),
        ("lora_B", [adapter, "bias"]) => (Part::LoraBias, Some(adapter)),
        ("lora_embedding_A", [] | ["weight"]) => (Part::EmbeddingA, None),
        ("lora_embedding_A", [adapter]) => (Part::EmbeddingA, Some(adapter)),
        ("lora_embedding_B", [] | ["weight"]) => (Part::EmbeddingB, None),
        ("lora_embedding_B", [adapter]) => (Part::EmbeddingB, Some(adapter)),
        ("lora_magnitude_vector", [] | ["weight"]) => (Part::Magnitude, None),
        ("lora_magnitude_vector", [adapter] | [adapter, "weight"]) => (Part::Magnitude, Some(adapter)),
        ("token_adapter", ["trainable_tokens_delta"]) => (Part::TokenRows, None),
        ("token_adapter", ["trainable_tokens_delta", adapter]) => (Part::TokenRows, Some(adapter)),
        ("token_adapter", ["base_layer", "weight"]) => (Part::BaseWeight, None),
        ("modules_to_save", [adapter, "weight"]) => (Part::Saved, Some(adapter)),
        ("modules_to_save", [adapter, "bias"]) => (Part::Bias, Some(adapter)),
        ("ia3_l", [] | ["weight"]) => (Part::Scale, None),
        ("ia3_l", [adapter]) => (Part::Scale, Some(adapter)),
        ("base_layer", ["weight"]) => (Part::BaseWeight, None),
        ("base_layer", ["bias"]) => (Part::Bias, None),
        _ => return None,
    })
}

/// The two matrices of an update.
pub(crate) fn halves(kind: ModuleKind) -> (Part, Part) {
    match kind {
        ModuleKind::Embedding => (Part::EmbeddingA, Part::EmbeddingB),
        ModuleKind::Linear(_) | ModuleKind::Fixed => (Part::A, Part::B),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_part_is_read() {
        let q = "layers.0.self_attn.q_proj";
        let cases = [
            ("lora_A.weight", Part::A, None),
            ("lora_A.default.weight", Part::A, Some("default")),
            ("lora_B.weight", Part::B, None),
            ("lora_B.other.weight", Part::B, Some("other")),
            ("lora_B.bias", Part::LoraBias, None),
            ("lora_B.default.bias", Part::LoraBias, Some("default")),
            ("lora_embedding_A", Part::EmbeddingA, None),
            ("lora_embedding_B.default", Part::EmbeddingB, Some("default")),
            ("lora_magnitude_vector", Part::Magnitude, None),
            ("lora_magnitude_vector.weight", Part::Magnitude, None),
            ("lora_magnitude_vector.default", Part::Magnitude, Some("default")),
            (
                "lora_magnitude_vector.default.weight",
                Part::Magnitude,
                Some("default"),
            ),
            ("base_layer.bias", Part::Bias, None),
            ("bias", Part::Bias, None),
            ("weight", Part::BaseWeight, None),
            ("base_layer.weight", Part::BaseWeight, None),
            ("modules_to_save.default.weight", Part::Saved, Some("default")),
            ("token_adapter.trainable_tokens_delta", Part::TokenRows, None),
            (
                "token_adapter.trainable_tokens_delta.default",
                Part::TokenRows,
                Some("default"),
            ),
            ("token_adapter.base_layer.weight", Part::BaseWeight, None),
        ];
        for (end, part, adapter) in cases {
            for wrappers in [
                "base_model.model.model.",
                "model.",
                "",
                "base_model.model.model.language_model.",
            ] {
                let name = format!("{wrappers}{q}.{end}");
                assert_eq!(
                    TensorName::parse(&name),
                    Some(TensorName {
                        wrappers,
                        key: q,
                        part,
                        adapter
                    }),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn other_ends_are_no_part() {
        for name in [
            "",
            "weight",
            "lora_A",
            "model.lm_head.lora_A",
            "model.lm_head.lora_A.a.b.weight",
            "model.lm_head.lora_C.weight.x",
            "model.lm_head.lora_diag",
            "model.lm_head.lora_velora_embed.default",
            "model.mlp.experts.base_layer.lora_A.weight",
            "model.lm_head.original_module",
            "vera_A",
            "...",
        ] {
            assert_eq!(TensorName::parse(name), None, "{name}");
        }
    }
}
