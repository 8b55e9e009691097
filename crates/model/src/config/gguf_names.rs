//! GGUF's names of a decoder's parts, and the order in which GGUF stores their rows.

use super::gguf::ARCHITECTURES;
use super::{Config, NormPlacement};

impl Config {
    /// GGUF's `general.architecture` of this decoder; `None` if GGUF has no name for it.
    pub fn gguf_architecture(&self) -> Option<&'static str> {
        let name = match self.architecture.as_str() {
            "mistral" | "mixtral" => "llama",
            "gemma3" => "gemma3_text",
            other => other,
        };
        ARCHITECTURES
            .iter()
            .find(|(_, ours)| *ours == name)
            .map(|(gguf, _)| *gguf)
    }

    /// Where row `row` of a query or key projection lies in a GGUF file. For these architectures
    /// GGUF stores the two features of a rotated pair as neighbours; transformers stores them half
    /// a head apart.
    pub fn gguf_rotary_row(&self, row: usize) -> usize {
        if !["llama", "mistral", "mixtral", "granite", "smollm3"].contains(&self.architecture.as_str()) {
            return row;
        }
        let (head, within) = (row / self.head_dim, row % self.head_dim);
        let half = self.head_dim / 2;
        head * self.head_dim + 2 * (within % half) + within / half
    }

    /// GGUF's name of a tensor that transformers calls `name` (`…weight` or `…bias`).
    pub fn gguf_name(&self, name: &str) -> Option<String> {
        let (module, kind) = name.rsplit_once('.')?;
        let whole = match module {
            "model.embed_tokens" => Some("token_embd"),
            "model.norm" => Some("output_norm"),
            "lm_head" => Some("output"),
            _ => None,
        };
        if let Some(whole) = whole {
            return Some(format!("{whole}.{kind}"));
        }
        let (layer, part) = module.strip_prefix("model.layers.")?.split_once('.')?;
        let after = self.norms != NormPlacement::Before;
        let part = match part {
            "self_attn.q_proj" => "attn_q",
            "self_attn.k_proj" => "attn_k",
            "self_attn.v_proj" => "attn_v",
            "self_attn.qkv_proj" => "attn_qkv",
            "self_attn.o_proj" => "attn_output",
            "self_attn.q_norm" => "attn_q_norm",
            "self_attn.k_norm" => "attn_k_norm",
            "mlp.gate_proj" => "ffn_gate",
            "mlp.up_proj" | "mlp.gate_up_proj" => "ffn_up",
            "mlp.down_proj" => "ffn_down",
            "input_layernorm" => "attn_norm",
            "post_attention_layernorm" if after => "post_attention_norm",
            "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
            "post_feedforward_layernorm" => "post_ffw_norm",
            "mlp.gate" | "block_sparse_moe.gate" => "ffn_gate_inp",
            // All experts of a layer in one tensor, which transformers does not have.
            "experts.gate" => "ffn_gate_exps",
            "experts.up" => "ffn_up_exps",
            "experts.down" => "ffn_down_exps",
            _ => return None,
        };
        Some(format!("blk.{layer}.{part}.{kind}"))
    }
}
