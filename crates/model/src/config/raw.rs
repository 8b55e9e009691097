//! The raw fields of a configuration, named as in `config.json`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::ModelError;

/// The fields of a `config.json`, or their equivalents in GGUF metadata. Fields that do not change
/// what the decoder computes are left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw {
    pub(super) model_type: Option<String>,
    pub(super) vocab_size: Option<usize>,
    pub(super) hidden_size: Option<usize>,
    pub(super) intermediate_size: Option<usize>,
    pub(super) num_hidden_layers: Option<usize>,
    pub(super) num_attention_heads: Option<usize>,
    pub(super) num_key_value_heads: Option<usize>,
    pub(super) head_dim: Option<usize>,
    pub(super) max_position_embeddings: Option<usize>,
    pub(super) rms_norm_eps: Option<f32>,
    pub(super) tie_word_embeddings: Option<bool>,
    #[serde(alias = "hidden_activation")]
    pub(super) hidden_act: Option<String>,
    pub(super) attention_bias: Option<bool>,
    pub(super) mlp_bias: Option<bool>,

    pub(super) sliding_window: Option<usize>,
    pub(super) use_sliding_window: Option<bool>,
    pub(super) max_window_layers: Option<usize>,
    pub(super) layer_types: Option<Vec<String>>,
    #[serde(alias = "_sliding_window_pattern")]
    pub(super) sliding_window_pattern: Option<usize>,

    pub(super) rope_parameters: Option<Map<String, Value>>,
    pub(super) rope_scaling: Option<Map<String, Value>>,
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_local_base_freq: Option<f64>,
    pub(super) partial_rotary_factor: Option<f64>,
    pub(super) original_max_position_embeddings: Option<usize>,
    pub(super) no_rope_layers: Option<Vec<u8>>,
    pub(super) no_rope_layer_interval: Option<usize>,

    pub(super) embedding_multiplier: Option<f32>,
    pub(super) residual_multiplier: Option<f32>,
    pub(super) attention_multiplier: Option<f32>,
    pub(super) logits_scaling: Option<f32>,
    pub(super) query_pre_attn_scalar: Option<f32>,
    pub(super) attn_logit_softcapping: Option<f32>,
    pub(super) final_logit_softcapping: Option<f32>,

    #[serde(alias = "num_experts")]
    pub(super) num_local_experts: Option<usize>,
    pub(super) num_experts_per_tok: Option<usize>,
    pub(super) moe_intermediate_size: Option<usize>,
    pub(super) norm_topk_prob: Option<bool>,
    pub(super) decoder_sparse_step: Option<usize>,
    pub(super) mlp_only_layers: Option<Vec<usize>>,

    /// GGUF's ready-made divisors of the inverse frequencies (tensor `rope_freqs.weight`).
    #[serde(skip)]
    pub(super) rope_divisors: Option<Vec<f32>>,
    /// Biases of the attention's output, where they do not follow `attention_bias` (GGUF: by
    /// tensor).
    #[serde(skip)]
    pub(super) o_bias: Option<bool>,
    /// Whether norm weights in the file include the 1 that gemma adds (GGUF).
    #[serde(skip)]
    pub(super) norms_are_whole: bool,
}

impl Raw {
    pub(super) fn from_json(json: &str) -> Result<Self, ModelError> {
        let mut config: Map<String, Value> = serde_json::from_str(json)?;
        // A multimodal gemma3 nests its text model's configuration.
        if let Some(Value::Object(text)) = config.remove("text_config") {
            config.extend(text);
        }
        // transformers 5 writes both names of this field for some models; they agree.
        if config.contains_key("num_local_experts") {
            config.remove("num_experts");
        }
        if config.contains_key("sliding_window_pattern") {
            config.remove("_sliding_window_pattern");
        }
        if config.contains_key("hidden_activation") {
            config.remove("hidden_act");
        }
        for required in ["quantization_config"] {
            if config.get(required).is_some_and(|value| !value.is_null()) {
                return Err(ModelError::Unsupported {
                    field: "quantization_config",
                    value: "a quantised checkpoint".to_owned(),
                    hint: "use float32, float16 or bfloat16 safetensors, or a GGUF file",
                });
            }
        }
        Ok(serde_json::from_value(Value::Object(config))?)
    }
}
