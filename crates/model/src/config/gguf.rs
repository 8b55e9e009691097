//! GGUF metadata → the raw fields of a configuration.

use multigraft_weights::Tensor;
use multigraft_weights::gguf::Gguf;
use serde_json::{Map, Value, json};

use super::raw::Raw;
use crate::error::ModelError;

/// GGUF's architecture names and those of `config.json`.
pub(super) const ARCHITECTURES: [(&str, &str); 10] = [
    ("llama", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("qwen3moe", "qwen3_moe"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3_text"),
    ("phi3", "phi3"),
    ("smollm3", "smollm3"),
    ("granite", "granite"),
    ("olmo2", "olmo2"),
];

pub(super) fn raw(gguf: &Gguf) -> Result<Raw, ModelError> {
    let metadata = gguf.metadata();
    let name = metadata
        .str("general.architecture")
        .ok_or(ModelError::Missing("general.architecture"))?;
    let Some((_, model_type)) = ARCHITECTURES.iter().find(|(gguf, _)| *gguf == name) else {
        return Err(ModelError::Architecture(name.to_owned()));
    };
    let size = |key: &str| metadata.u32(&format!("{name}.{key}")).map(|n| n as usize);
    let number = |key: &str| metadata.f32(&format!("{name}.{key}"));
    let has = |tensor: &str| gguf.tensor(tensor).is_some();
    let floats = |tensor: &str| gguf.tensor(tensor).filter(is_small).map(|t| t.to_f32());

    let experts = size("expert_count").filter(|&n| n > 0);
    let model_type = if *model_type == "llama" && experts.is_some() {
        "mixtral"
    } else {
        model_type
    };
    let heads = size("attention.head_count");
    let hidden = size("embedding_length");
    let layers = size("block_count");
    let window = size("attention.sliding_window").filter(|&w| w > 0);
    Ok(Raw {
        model_type: Some(model_type.to_owned()),
        vocab_size: gguf
            .tensor("token_embd.weight")
            .and_then(|t| t.shape.first().copied()),
        hidden_size: hidden,
        intermediate_size: size("feed_forward_length").or(size("expert_feed_forward_length")),
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: size("attention.head_count_kv"),
        head_dim: size("attention.key_length").or(hidden.zip(heads).map(|(h, n)| h / n.max(1))),
        max_position_embeddings: size("context_length"),
        rms_norm_eps: number("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings: Some(!has("output.weight")),
        attention_bias: Some(has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias")),
        o_bias: Some(has("blk.0.attn_output.bias")),
        mlp_bias: Some(has("blk.0.ffn_up.bias")),
        sliding_window: window,
        use_sliding_window: Some(window.is_some()),
        max_window_layers: Some(0),
        rope_scaling: rope_scaling(gguf, name),
        rope_theta: number("rope.freq_base").map(f64::from),
        rope_local_base_freq: number("rope.freq_base_swa").map(f64::from),
        partial_rotary_factor: size("rope.dimension_count")
            .zip(size("attention.key_length").or(hidden.zip(heads).map(|(h, n)| h / n.max(1))))
            .map(|(turning, head_dim)| turning as f64 / head_dim.max(1) as f64),
        original_max_position_embeddings: size("rope.scaling.original_context_length"),
        rope_divisors: floats("rope_freqs.weight"),
        embedding_multiplier: number("embedding_scale"),
        residual_multiplier: number("residual_scale"),
        attention_multiplier: number("attention.scale"),
        logits_scaling: number("logit_scale"),
        query_pre_attn_scalar: query_scale(model_type, layers, hidden, heads, size("attention.key_length")),
        attn_logit_softcapping: number("attn_logit_softcapping"),
        final_logit_softcapping: number("final_logit_softcapping"),
        num_local_experts: experts,
        num_experts_per_tok: size("expert_used_count"),
        moe_intermediate_size: size("expert_feed_forward_length"),
        norm_topk_prob: experts.map(|_| true),
        norms_are_whole: true,
        ..Raw::default()
    })
}

/// Whether a tensor is small enough to hold one number for each pair of a head's features. Larger
/// tensors are not decoded.
fn is_small(tensor: &Tensor<'_>) -> bool {
    tensor.len() <= 4096
}

/// Gemma's query scale, which GGUF metadata lacks: the head size, except for the two largest
/// models.
fn query_scale(
    model_type: &str,
    layers: Option<usize>,
    hidden: Option<usize>,
    heads: Option<usize>,
    head_dim: Option<usize>,
) -> Option<f32> {
    match (model_type, layers) {
        ("gemma2", Some(46)) | ("gemma3_text", Some(62)) => {
            hidden.zip(heads).map(|(h, n)| h as f32 / n as f32)
        }
        ("gemma2" | "gemma3_text", _) => head_dim.map(|d| d as f32),
        _ => None,
    }
}

/// The scaling of the rotation, in `config.json`'s terms.
fn rope_scaling(gguf: &Gguf, arch: &str) -> Option<Map<String, Value>> {
    let metadata = gguf.metadata();
    let number = |key: &str| metadata.f32(&format!("{arch}.rope.scaling.{key}"));
    let mut scaling = Map::new();
    let factors = |tensor: &str| gguf.tensor(tensor).filter(is_small).map(|t| json!(t.to_f32()));
    if let (Some(long), Some(short)) = (
        factors("rope_factors_long.weight"),
        factors("rope_factors_short.weight"),
    ) {
        scaling.insert("rope_type".to_owned(), json!("longrope"));
        scaling.insert("long_factor".to_owned(), long);
        scaling.insert("short_factor".to_owned(), short);
    } else {
        let kind = metadata.str(&format!("{arch}.rope.scaling.type"))?;
        scaling.insert("rope_type".to_owned(), json!(kind));
    }
    let names = [
        ("factor", "factor"),
        ("original_context_length", "original_max_position_embeddings"),
        ("attn_factor", "attention_factor"),
        ("yarn_beta_fast", "beta_fast"),
        ("yarn_beta_slow", "beta_slow"),
    ];
    for (key, name) in names {
        if let Some(value) = number(key).or_else(|| {
            metadata
                .u32(&format!("{arch}.rope.scaling.{key}"))
                .map(|n| n as f32)
        }) {
            scaling.insert(name.to_owned(), json!(value));
        }
    }
    Some(scaling)
}
