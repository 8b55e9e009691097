//! The table of all fields that PEFT can write into a LoRA's `adapter_config.json`, and how each is
//! handled.

/// How a field is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The field changes what the adapter computes, and it is applied.
    Applied,
    /// The field does not change what a trained adapter computes.
    Inert,
    /// The field would change what the adapter computes, and it is not supported: an adapter is
    /// refused unless the value is null, false or empty.
    Refused,
}

/// A field of `adapter_config.json`.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// How it is handled.
    pub fate: Fate,
    /// How it is applied, why it is inert, or what it would do.
    pub note: &'static str,
}

pub(super) const fn applied(name: &'static str, note: &'static str) -> Field {
    Field {
        name,
        fate: Fate::Applied,
        note,
    }
}

pub(super) const fn inert(name: &'static str, note: &'static str) -> Field {
    Field {
        name,
        fate: Fate::Inert,
        note,
    }
}

pub(super) const fn refused(name: &'static str, note: &'static str) -> Field {
    Field {
        name,
        fate: Fate::Refused,
        note,
    }
}

/// The fields of `LoraConfig` in PEFT 0.21.2 and earlier versions, and those that other tools add.
/// An adapter with a field that is not in this table is refused unless the value is null, false or
/// empty.
pub const FIELDS: &[Field] = &[
    // PeftConfigMixin, PeftConfig
    applied("peft_type", "LORA, or a kind that is turned into LoRA on loading"),
    applied("task_type", "must be CAUSAL_LM or null"),
    applied(
        "base_model_name_or_path",
        "a warning if the base is called otherwise",
    ),
    applied("peft_version", "shown by inspect"),
    inert("auto_mapping", "how PEFT finds the base's class"),
    inert("revision", "which version of the base PEFT downloads"),
    inert("inference_mode", "whether PEFT freezes the adapter"),
    // LoraConfig: the update
    applied("r", "the rank; must agree with the tensors"),
    applied("lora_alpha", "scaling is alpha/r"),
    applied("use_rslora", "scaling is alpha/√r"),
    applied("rank_pattern", "rank by module, first match wins"),
    applied("alpha_pattern", "alpha by module, first match wins"),
    applied("use_dora", "linear maps, lm_head and embedding"),
    applied("lora_bias", "lora_B.bias, scaled like the rest"),
    applied(
        "bias",
        "none, all or lora_only: biases in the file replace the base's",
    ),
    applied(
        "alora_invocation_tokens",
        "the adapter sets in where they begin for the last time in the prompt",
    ),
    // LoraConfig: the modules
    applied(
        "target_modules",
        "every module that it names must have tensors, and no other",
    ),
    applied("exclude_modules", "as target_modules"),
    applied("layers_to_transform", "as target_modules"),
    applied("layers_pattern", "as target_modules"),
    applied(
        "modules_to_save",
        "lm_head and embed_tokens; others are refused by name",
    ),
    applied("trainable_token_indices", "rows of embed_tokens and lm_head"),
    applied(
        "ensure_weight_tying",
        "the file then holds tensors for the lm_head too, and they are applied",
    ),
    // LoraConfig: training only
    inert("lora_dropout", "training only"),
    applied(
        "init_lora_weights",
        "refused for those that change the base (PiSSA, OLoRA, CorDA, LoRA-GA, LoftQ)",
    ),
    inert("loftq_config", "initialisation only, see init_lora_weights"),
    inert("eva_config", "initialisation only"),
    inert("corda_config", "initialisation only, see init_lora_weights"),
    inert("lora_ga_config", "initialisation only, see init_lora_weights"),
    inert("runtime_config", "where PEFT computes"),
    inert("qalora_group_size", "only means something with use_qalora"),
    inert("megatron_core", "only means something with megatron_config"),
    // LoraConfig: not supported
    refused(
        "fan_in_fan_out",
        "the base's linear maps are not stored transposed",
    ),
    refused("layer_replication", "it changes the number of the base's layers"),
    refused("target_parameters", "LoRA on stacked parameters (routed experts)"),
    refused("megatron_config", "LoRA on Megatron's parallel layers"),
    refused("use_qalora", "QALoRA pools the inputs of each update"),
    refused("use_bdlora", "BD-LoRA stores block-diagonal matrices"),
    refused("arrow_config", "Arrow routes between several adapters"),
    refused("velora_config", "VeLoRA keeps a further tensor in each layer"),
    refused(
        "kasa_config",
        "KaSA truncates the base's weights and adds a diagonal",
    ),
    refused("monteclora_config", "MonteCLoRA samples its weights"),
    // Earlier versions and other tools
    inert("merge_weights", "PEFT before 0.4: when to merge"),
    refused(
        "enable_lora",
        "PEFT before 0.4: updates on parts of a fused matrix",
    ),
    inert("lora_dtype", "ms-swift: the dtype of training"),
    inert("lorap_lr_ratio", "ms-swift: a learning rate"),
    inert("lorap_emb_lr", "ms-swift: a learning rate"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_listed_twice() {
        for (i, field) in FIELDS.iter().enumerate() {
            assert!(
                FIELDS[..i].iter().all(|other| other.name != field.name),
                "{}",
                field.name
            );
        }
    }
}
