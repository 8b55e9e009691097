//! The kinds of adapter that are supported, and the config fields of those that are not LoRA.

use super::fields::{FIELDS, Field, applied, inert, refused};

/// A supported kind of adapter. IA³ is applied as it is; the other variants are converted to LoRA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Hu et al. 2021, arXiv 2106.09685.
    Lora,
    /// LoRA in the form of a singular value decomposition. Zhang et al. 2023, arXiv 2303.10512.
    AdaLora,
    /// The Hadamard product of two low-rank products. FedPara, Hyeon-Woo et al. 2022, arXiv
    /// 2108.06098.
    Loha,
    /// The Kronecker product of two matrices. LyCORIS, Yeh et al. 2024, arXiv 2309.14859.
    Lokr,
    /// Fixed random matrices that all modules share, with trained scales. Kopiczko et al. 2024,
    /// arXiv 2310.11454.
    Vera,
    /// Trained scales of outputs or inputs. Liu et al. 2022, arXiv 2205.05638.
    Ia3,
}

impl Kind {
    /// Parses PEFT's `peft_type`.
    pub(super) fn of(peft_type: &str) -> Option<Self> {
        Some(match peft_type {
            "LORA" => Self::Lora,
            "ADALORA" => Self::AdaLora,
            "LOHA" => Self::Loha,
            "LOKR" => Self::Lokr,
            "VERA" => Self::Vera,
            "IA3" => Self::Ia3,
            _ => return None,
        })
    }

    /// The common name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Lora => "LoRA",
            Self::AdaLora => "AdaLoRA",
            Self::Loha => "LoHa",
            Self::Lokr => "LoKr",
            Self::Vera => "VeRA",
            Self::Ia3 => "IA³",
        }
    }

    /// The field `name` of this kind's config.
    pub(super) fn field(self, name: &str) -> Option<&'static Field> {
        let own: &[Field] = match self {
            Self::Lora => FIELDS,
            Self::AdaLora => ADALORA,
            Self::Loha | Self::Lokr => LYCORIS,
            Self::Vera => VERA,
            Self::Ia3 => IA3,
        };
        let shared = FIELDS.iter().filter(|field| SHARED.contains(&field.name));
        own.iter().chain(shared).find(|field| field.name == name)
    }

    /// The name of the field that holds alpha.
    pub(super) fn alpha(self) -> &'static str {
        match self {
            Self::Loha | Self::Lokr => "alpha",
            _ => "lora_alpha",
        }
    }
}

/// Why an unsupported kind is not supported.
pub(super) fn why_not(peft_type: &str) -> &'static str {
    match peft_type {
        "OFT" | "BOFT" | "HRA" | "PSOFT" | "ROAD" | "GRALORA" | "HIRA" => {
            "it does not add a low-rank matrix to the base's weights"
        }
        "FOURIERFT" | "C3A" | "WAVEFT" | "SHIRA" | "RANDLORA" | "VBLORA" | "MISS" => {
            "its updates are no low-rank products of the matrices in the file"
        }
        "XLORA" | "POLY" => "it mixes several adapters anew for every input",
        "PROMPT_TUNING" | "MULTITASK_PROMPT_TUNING" | "P_TUNING" | "PREFIX_TUNING" | "CPT" | "CARTRIDGE" => {
            "it trains tokens or keys and values, and no weights"
        }
        "ADAPTION_PROMPT" => "it adds layers to the base",
        _ => "only LORA, ADALORA, LOHA, LOKR, VERA and IA3 are",
    }
}

/// The fields that all kinds share with LoRA.
const SHARED: [&str; 12] = [
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "peft_version",
    "auto_mapping",
    "revision",
    "inference_mode",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
];

const NO_TRANSPOSE: Field = refused(
    "fan_in_fan_out",
    "the base's linear maps are not stored transposed",
);
const INIT: Field = inert("init_weights", "initialisation only");

const ADALORA: &[Field] = &[
    applied("init_r", "scaling is alpha/init_r"),
    applied("lora_alpha", "scaling is alpha/init_r"),
    applied("bias", "as LoRA's"),
    inert("r", "AdaLoRA takes init_r"),
    inert("rank_pattern", "which ranks were kept; the tensors show it"),
    inert("target_r", "training only"),
    inert("tinit", "training only"),
    inert("tfinal", "training only"),
    inert("deltaT", "training only"),
    inert("beta1", "training only"),
    inert("beta2", "training only"),
    inert("orth_reg_weight", "training only"),
    inert("total_step", "training only"),
    inert("lora_dropout", "training only"),
    inert("init_lora_weights", "initialisation only"),
    inert("runtime_config", "where PEFT computes"),
    inert("qalora_group_size", "only means something with use_qalora"),
    inert("megatron_core", "only means something with megatron_config"),
    NO_TRANSPOSE,
];

const LYCORIS: &[Field] = &[
    applied("r", "the rank; must agree with the tensors"),
    applied("alpha", "scaling is alpha/r"),
    applied("rank_pattern", "rank by module, first match wins"),
    applied("alpha_pattern", "alpha by module, first match wins"),
    inert("rank_dropout", "training only"),
    inert("rank_dropout_scale", "training only"),
    inert("module_dropout", "training only"),
    inert("use_effective_conv2d", "only means something for convolutions"),
    inert("decompose_both", "the tensors show it"),
    inert("decompose_factor", "the tensors show it"),
    INIT,
];

const VERA: &[Field] = &[
    applied("r", "the rank; must agree with the tensors"),
    applied(
        "bias",
        "none, all or vera_only: biases in the file replace the base's",
    ),
    inert("save_projection", "the tensors show it"),
    inert("projection_prng_key", "the shared matrices must be in the file"),
    inert("vera_dropout", "training only"),
    inert("d_initial", "initialisation only"),
    INIT,
    NO_TRANSPOSE,
];

const IA3: &[Field] = &[
    inert("feedforward_modules", "the tensors' shapes show it"),
    inert("init_ia3_weights", "initialisation only"),
    NO_TRANSPOSE,
];
