//! The modules of a decoder, by their paths in transformers.

use super::{Config, FfnConfig, NormPlacement, QkNorm};
use crate::delta::{LinearId, Target};
use crate::modules::{Module, ModuleKind};

impl Config {
    /// Every module with weights, in the order of the forward pass.
    pub fn modules(&self) -> Vec<Module> {
        let mut modules = vec![Module {
            path: "model.embed_tokens".to_owned(),
            kind: ModuleKind::Embedding,
            out: self.vocab,
            inp: self.hidden,
            bias: false,
        }];
        for layer in 0..self.layers.len() {
            self.layer_modules(layer, &mut modules);
        }
        modules.push(fixed("model.norm".to_owned(), self.hidden, 1));
        modules.push(Module {
            path: "lm_head".to_owned(),
            kind: ModuleKind::Linear(LinearId::LmHead),
            out: self.vocab,
            inp: self.hidden,
            bias: false,
        });
        modules
    }

    fn layer_modules(&self, layer: usize, modules: &mut Vec<Module>) {
        let (hidden, q, kv) = (
            self.hidden,
            self.heads * self.head_dim,
            self.kv_heads * self.head_dim,
        );
        let prefix = format!("model.layers.{layer}");
        let mut linear = |name: &str, target: Target, out: usize, inp: usize, bias: bool| {
            let kind = ModuleKind::Linear(LinearId::Layer { layer, target });
            modules.push(Module {
                path: format!("{prefix}.{name}"),
                kind,
                out,
                inp,
                bias,
            });
        };
        if self.fused {
            linear(
                "self_attn.qkv_proj",
                Target::Qkv,
                q + 2 * kv,
                hidden,
                self.qkv_bias,
            );
        } else {
            linear("self_attn.q_proj", Target::Q, q, hidden, self.qkv_bias);
            linear("self_attn.k_proj", Target::K, kv, hidden, self.qkv_bias);
            linear("self_attn.v_proj", Target::V, kv, hidden, self.qkv_bias);
        }
        linear("self_attn.o_proj", Target::O, hidden, q, self.o_bias);
        match self.layers[layer].ffn {
            FfnConfig::Dense { width } => {
                if self.fused {
                    linear(
                        "mlp.gate_up_proj",
                        Target::GateUp,
                        2 * width,
                        hidden,
                        self.mlp_bias,
                    );
                } else {
                    linear("mlp.gate_proj", Target::Gate, width, hidden, self.mlp_bias);
                    linear("mlp.up_proj", Target::Up, width, hidden, self.mlp_bias);
                }
                linear("mlp.down_proj", Target::Down, hidden, width, self.mlp_bias);
            }
            FfnConfig::Experts { count, width, .. } => {
                let (block, names) = self.expert_names();
                modules.push(fixed(format!("{prefix}.{block}.gate"), count, hidden));
                for expert in 0..count {
                    let expert = format!("{prefix}.{block}.experts.{expert}");
                    modules.push(fixed(format!("{expert}.{}", names[0]), width, hidden));
                    modules.push(fixed(format!("{expert}.{}", names[1]), width, hidden));
                    modules.push(fixed(format!("{expert}.{}", names[2]), hidden, width));
                }
            }
        }
        let mut norms = vec![];
        if self.norms != NormPlacement::After {
            norms.push(("input_layernorm", hidden));
        }
        norms.push(("post_attention_layernorm", hidden));
        if self.norms == NormPlacement::Both {
            norms.push(("pre_feedforward_layernorm", hidden));
        }
        if self.norms != NormPlacement::Before {
            norms.push(("post_feedforward_layernorm", hidden));
        }
        match self.qk_norm {
            QkNorm::None => {}
            QkNorm::PerHead => norms.extend([
                ("self_attn.q_norm", self.head_dim),
                ("self_attn.k_norm", self.head_dim),
            ]),
            QkNorm::Whole => norms.extend([("self_attn.q_norm", q), ("self_attn.k_norm", kv)]),
        }
        modules.extend(
            norms
                .into_iter()
                .map(|(name, size)| fixed(format!("{prefix}.{name}"), size, 1)),
        );
    }

    /// The names in safetensors of the routed block, and of an expert's gate, up and down
    /// projections.
    pub fn expert_names(&self) -> (&'static str, [&'static str; 3]) {
        if self.architecture == "mixtral" {
            ("block_sparse_moe", ["w1", "w3", "w2"])
        } else {
            ("mlp", ["gate_proj", "up_proj", "down_proj"])
        }
    }
}

fn fixed(path: String, out: usize, inp: usize) -> Module {
    Module {
        path,
        kind: ModuleKind::Fixed,
        out,
        inp,
        bias: false,
    }
}
