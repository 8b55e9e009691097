//! Raw fields → [`Config`]: the one place that knows how architectures differ.

use multigraft_kernels::Activation;

use super::raw::Raw;
use super::rope::{self, Rope};
use super::{Config, FfnConfig, LayerConfig, NormPlacement, QkNorm, SUPPORTED};
use crate::error::ModelError;

pub(super) fn build(raw: &Raw) -> Result<Config, ModelError> {
    let architecture = raw.model_type.clone().ok_or(ModelError::Missing("model_type"))?;
    if !SUPPORTED.contains(&architecture.as_str()) {
        return Err(ModelError::Architecture(architecture));
    }
    let arch = if architecture == "gemma3" {
        "gemma3_text"
    } else {
        architecture.as_str()
    };
    let gemma = arch.starts_with("gemma");
    let size = |value: Option<usize>, name| match value {
        None => Err(ModelError::Missing(name)),
        Some(0) => Err(unsupported(name, 0, "it must be at least 1")),
        Some(n) if n > MAX_SIZE => Err(unsupported(name, n, "no such model exists")),
        Some(n) => Ok(n),
    };
    let hidden = size(raw.hidden_size, "hidden_size")?;
    let heads = size(raw.num_attention_heads, "num_attention_heads")?;
    let kv_heads = size(raw.num_key_value_heads.or(Some(heads)), "num_key_value_heads")?;
    let head_dim = size(
        raw.head_dim.or(default_head_dim(arch)).or(Some(hidden / heads)),
        "head_dim",
    )?;
    let layers = size(raw.num_hidden_layers, "num_hidden_layers")?;
    if layers > MAX_LAYERS {
        return Err(unsupported("num_hidden_layers", layers, "no such model exists"));
    }
    for (value, name) in [
        (raw.intermediate_size, "intermediate_size"),
        (raw.moe_intermediate_size, "moe_intermediate_size"),
        (raw.num_local_experts, "num_local_experts"),
    ] {
        if value.is_some_and(|n| n > MAX_SIZE) {
            return Err(unsupported(name, value.unwrap_or(0), "no such model exists"));
        }
    }
    let vocab = size(raw.vocab_size, "vocab_size")?;
    let context = size(raw.max_position_embeddings, "max_position_embeddings")?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(unsupported(
            "num_key_value_heads",
            kv_heads,
            "it must divide num_attention_heads",
        ));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(unsupported("head_dim", head_dim, "it must be even"));
    }
    let bias = raw.attention_bias.unwrap_or(arch == "qwen2");
    let ropes = rope::ropes(raw, arch, head_dim)?;
    Ok(Config {
        vocab,
        hidden,
        heads,
        kv_heads,
        head_dim,
        context,
        norm_eps: raw
            .rms_norm_eps
            .unwrap_or(if matches!(arch, "phi3" | "mixtral" | "olmo2") {
                1e-5
            } else {
                1e-6
            }),
        norm_plus_one: gemma && !raw.norms_are_whole,
        norms: match arch {
            "olmo2" => NormPlacement::After,
            _ if gemma => NormPlacement::Both,
            _ => NormPlacement::Before,
        },
        qk_norm: match arch {
            "qwen3" | "qwen3_moe" | "gemma3_text" => QkNorm::PerHead,
            "olmo2" => QkNorm::Whole,
            _ => QkNorm::None,
        },
        tied_embeddings: raw.tie_word_embeddings.unwrap_or(gemma || arch == "smollm3"),
        fused: arch == "phi3",
        qkv_bias: bias,
        o_bias: raw.o_bias.unwrap_or(bias && arch != "qwen2"),
        mlp_bias: raw.mlp_bias.unwrap_or(false),
        activation: activation(raw, gemma)?,
        embedding_scale: if gemma {
            (hidden as f32).sqrt()
        } else {
            raw.embedding_multiplier.unwrap_or(1.0)
        },
        residual_scale: raw.residual_multiplier.unwrap_or(1.0),
        attention_scale: match raw.attention_multiplier {
            Some(multiplier) if arch == "granite" => multiplier,
            _ if gemma => 1.0 / raw.query_pre_attn_scalar.unwrap_or(256.0).sqrt(),
            _ => 1.0 / (head_dim as f32).sqrt(),
        },
        attention_softcap: raw
            .attn_logit_softcapping
            .or((arch == "gemma2").then_some(50.0))
            .filter(|_| gemma),
        logit_scale: 1.0 / raw.logits_scaling.filter(|_| arch == "granite").unwrap_or(1.0),
        logit_softcap: raw
            .final_logit_softcapping
            .or((arch == "gemma2").then_some(30.0))
            .filter(|_| gemma),
        layers: layer_configs(raw, arch, layers, &ropes)?,
        ropes,
        architecture,
    })
}

/// No model has sizes above this; a file that states one is corrupt, and is refused before memory
/// is allocated.
const MAX_SIZE: usize = 1 << 24;

/// No model has more layers than this.
const MAX_LAYERS: usize = 1024;

fn unsupported(field: &'static str, value: impl std::fmt::Display, hint: &'static str) -> ModelError {
    ModelError::Unsupported {
        field,
        value: value.to_string(),
        hint,
    }
}

/// The head sizes of architectures whose configuration may leave them out although they do not
/// follow from the hidden size.
fn default_head_dim(arch: &str) -> Option<usize> {
    match arch {
        "gemma2" | "gemma3_text" => Some(256),
        "qwen3" => Some(128),
        _ => None,
    }
}

fn activation(raw: &Raw, gemma: bool) -> Result<Activation, ModelError> {
    let default = if gemma { "gelu_pytorch_tanh" } else { "silu" };
    match raw.hidden_act.as_deref().unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        // Early gemma configurations say `gelu` for the tanh approximation.
        "gelu" if gemma => Ok(Activation::GeluTanh),
        other => Err(unsupported("hidden_act", other, "silu and gelu_pytorch_tanh are")),
    }
}

fn layer_configs(
    raw: &Raw,
    arch: &str,
    layers: usize,
    ropes: &[Rope],
) -> Result<Vec<LayerConfig>, ModelError> {
    (0..layers)
        .map(|layer| {
            let sliding = slides(raw, arch, layer);
            let window = match raw.sliding_window {
                Some(window) if sliding && window > 0 => Some(window),
                None if sliding && arch == "gemma2" => Some(4096),
                _ => None,
            };
            // gemma3 has a second rotation for its sliding layers.
            let rope = if sliding && ropes.len() > 1 { 1 } else { 0 };
            Ok(LayerConfig {
                window,
                rope: rotates(raw, arch, layer).then_some(rope),
                ffn: ffn(raw, layer)?,
            })
        })
        .collect()
}

/// Whether a layer's attention slides, by the rules of each architecture's configuration class in
/// transformers.
fn slides(raw: &Raw, arch: &str, layer: usize) -> bool {
    let listed = raw
        .layer_types
        .as_ref()
        .and_then(|types| types.get(layer))
        .map(|t| t == "sliding_attention");
    match arch {
        "mistral" | "mixtral" | "phi3" => true,
        "gemma2" => listed.unwrap_or(layer.is_multiple_of(2)),
        "gemma3_text" => {
            listed.unwrap_or(!(layer + 1).is_multiple_of(raw.sliding_window_pattern.unwrap_or(6).max(1)))
        }
        "qwen2" | "qwen3" => {
            raw.use_sliding_window == Some(true)
                && listed.unwrap_or(layer >= raw.max_window_layers.unwrap_or(28))
        }
        "qwen3_moe" => raw.use_sliding_window == Some(true),
        "smollm3" => raw.use_sliding_window == Some(true) && listed.unwrap_or(!rotates(raw, arch, layer)),
        _ => false,
    }
}

/// Whether a layer rotates queries and keys: smollm3 leaves every fourth layer without positions.
fn rotates(raw: &Raw, arch: &str, layer: usize) -> bool {
    if arch != "smollm3" {
        return true;
    }
    match raw.no_rope_layers.as_ref().and_then(|layers| layers.get(layer)) {
        Some(&rotates) => rotates != 0,
        None => !(layer + 1).is_multiple_of(raw.no_rope_layer_interval.unwrap_or(4).max(1)),
    }
}

fn ffn(raw: &Raw, layer: usize) -> Result<FfnConfig, ModelError> {
    let width = raw
        .intermediate_size
        .ok_or(ModelError::Missing("intermediate_size"));
    let dense = raw
        .mlp_only_layers
        .as_ref()
        .is_some_and(|layers| layers.contains(&layer))
        || !(layer + 1).is_multiple_of(raw.decoder_sparse_step.unwrap_or(1).max(1));
    let Some(count) = raw.num_local_experts.filter(|&count| count > 0 && !dense) else {
        return Ok(FfnConfig::Dense { width: width? });
    };
    let active = raw
        .num_experts_per_tok
        .ok_or(ModelError::Missing("num_experts_per_tok"))?;
    if active == 0 || active > count {
        return Err(unsupported(
            "num_experts_per_tok",
            active,
            "it must lie between 1 and the number of experts",
        ));
    }
    Ok(FfnConfig::Experts {
        count,
        active,
        width: raw.moe_intermediate_size.map_or(width, Ok)?,
        // mixtral has no such field and always scales.
        normalise: raw
            .norm_topk_prob
            .unwrap_or(raw.model_type.as_deref() == Some("mixtral")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::Config;

    fn refusal(field: &str, value: Value) -> String {
        let mut config = json!({
            "model_type": "phi3", "vocab_size": 32, "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
        });
        Config::from_hf_json(&config.to_string()).expect("the configuration that the cases spoil is good");
        config[field] = value;
        Config::from_hf_json(&config.to_string())
            .expect_err(field)
            .to_string()
    }

    #[test]
    fn impossible_sizes_are_refused_before_memory_is_allocated() {
        for field in [
            "num_hidden_layers",
            "intermediate_size",
            "vocab_size",
            "hidden_size",
        ] {
            let message = refusal(field, json!(1u64 << 40));
            assert!(message.contains(field), "{message}");
        }
        assert!(refusal("num_hidden_layers", json!(1025)).contains("1025"));
        assert!(refusal("num_key_value_heads", json!(3)).contains("divide"));
        assert!(refusal("num_attention_heads", json!(0)).contains("at least 1"));
    }

    #[test]
    fn an_unsupported_value_is_named_with_the_supported_ones() {
        let message = refusal("model_type", json!("mamba"));
        assert!(
            message.contains("`mamba`") && message.contains("qwen3_moe"),
            "{message}"
        );
        let message = refusal("rope_scaling", json!({"type": "dynamic", "factor": 2.0}));
        assert!(
            message.contains("dynamic") && message.contains("yarn"),
            "{message}"
        );
        assert!(refusal("hidden_act", json!("relu")).contains("relu"));
        assert!(refusal("quantization_config", json!({"bits": 4})).contains("quantization_config"));
    }
}
