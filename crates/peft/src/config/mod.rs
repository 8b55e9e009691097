//! Parses `adapter_config.json`.
//!
//! [`parse_config`] turns the JSON into a [`PeftConfig`], of which every field is applied. Settings
//! of PEFT that are not supported are refused by name. [`FIELDS`] is the table of all fields.

mod fields;
mod pattern;
mod targets;
mod unsupported;
mod value;
mod variants;

use std::collections::HashMap;

use serde_json::Value;

use multigraft_model::ModuleKind;

pub use fields::{FIELDS, Fate, Field};
pub(crate) use variants::Kind;

use crate::refusal::Refusal;
use pattern::Overrides;
use targets::Targets;
use value::Fields;

/// The largest `adapter_config.json` that is parsed, in bytes. A config that lists every module of
/// a 100-layer model by path, with ranks, has 100 kB.
pub const CONFIG_LIMIT: usize = 1 << 20;
/// The largest rank that is supported.
pub const RANK_LIMIT: usize = 4096;
/// PEFT's defaults of `r` and `lora_alpha`.
const DEFAULT_RANK: usize = 8;
const DEFAULT_ALPHA: f64 = 8.0;

/// PEFT's `bias`: which of the base's biases were trained. The file holds those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    None,
    All,
    LoraOnly,
}

/// PEFT's `trainable_token_indices`: which rows of which tables were trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenIndices {
    /// Rows of the embedding.
    Embedding(Vec<u32>),
    /// Rows by module name, in the file's order. A name means the modules whose path ends with it.
    ByName(Vec<(String, Vec<u32>)>),
}

/// A parsed `adapter_config.json`. Every setting is known and in range.
#[derive(Clone, Debug)]
pub struct PeftConfig {
    pub(crate) kind: Kind,
    pub(crate) base_model: Option<String>,
    pub(crate) peft_version: Option<String>,
    pub(crate) rslora: bool,
    pub(crate) dora: bool,
    pub(crate) lora_bias: bool,
    pub(crate) bias: Bias,
    pub(crate) modules_to_save: Vec<String>,
    pub(crate) token_indices: Option<TokenIndices>,
    pub(crate) ensure_weight_tying: bool,
    /// aLoRA's invocation tokens. Empty for other adapters.
    pub(crate) invocation: Vec<u32>,
    /// Warnings about settings that are applied although they are unusual.
    pub(crate) warnings: Vec<String>,
    rank: usize,
    alpha: f64,
    ranks: Overrides<usize>,
    alphas: Overrides<f64>,
    targets: Targets,
    /// For updates that were converted to LoRA: what they were, and rank and scaling by module
    /// path.
    converted: Option<Converted>,
}

/// Rank and scaling of an adapter that was converted to LoRA. They replace the config's.
#[derive(Clone, Debug)]
pub(crate) struct Converted {
    /// Name of the original format.
    pub(crate) from: &'static str,
    /// Rank and scaling of each module, by the path that PEFT matched.
    pub(crate) updates: HashMap<String, (usize, f32)>,
}

impl PeftConfig {
    /// The config of an adapter in llama.cpp's format.
    pub(crate) fn of_gguf(converted: Converted, base_model: Option<String>, warnings: Vec<String>) -> Self {
        Self {
            kind: Kind::Lora,
            invocation: Vec::new(),
            base_model,
            peft_version: None,
            rslora: false,
            dora: false,
            lora_bias: false,
            bias: Bias::None,
            modules_to_save: Vec::new(),
            token_indices: None,
            ensure_weight_tying: false,
            warnings,
            rank: DEFAULT_RANK,
            alpha: DEFAULT_ALPHA,
            ranks: Overrides::default(),
            alphas: Overrides::default(),
            targets: Targets::default(),
            converted: Some(converted),
        }
    }

    /// The original format of an adapter that was converted to LoRA.
    pub(crate) fn converted_from(&self) -> Option<&'static str> {
        match (&self.converted, self.kind) {
            (Some(converted), _) => Some(converted.from),
            (None, Kind::Lora) => None,
            (None, kind) => Some(kind.as_str()),
        }
    }

    /// Sets rank and scaling of the updates that replace those in the file.
    pub(crate) fn convert(&mut self, updates: HashMap<String, (usize, f32)>) {
        let from = self.kind.as_str();
        self.converted = Some(Converted { from, updates });
    }

    /// Rank and scaling of a converted update.
    fn update(&self, path: &str) -> Option<(usize, f32)> {
        self.converted.as_ref()?.updates.get(path).copied()
    }

    /// The rank of the module at `path`.
    pub(crate) fn rank(&self, path: &str) -> Result<usize, Refusal> {
        if let Some((rank, _)) = self.update(path) {
            return Ok(rank);
        }
        Ok(self.ranks.get(path)?.unwrap_or(self.rank))
    }

    /// The scaling of the module at `path`: `alpha/r`, or `alpha/√r` with rsLoRA.
    pub(crate) fn scaling(&self, path: &str) -> Result<f32, Refusal> {
        if let Some((_, scaling)) = self.update(path) {
            return Ok(scaling);
        }
        let (rank, alpha) = (self.rank(path)?, self.alphas.get(path)?.unwrap_or(self.alpha));
        let divisor = if self.rslora {
            (rank as f64).sqrt()
        } else {
            rank as f64
        };
        let scaling = alpha / divisor;
        let single = scaling as f32;
        if !single.is_finite() {
            return Err(Refusal::Scaling {
                module: path.to_owned(),
                scaling,
                alpha,
                rank,
            });
        }
        Ok(single)
    }

    /// Whether the module that PEFT knows by `path` has a low-rank update.
    pub(crate) fn covers(&self, path: &str, kind: ModuleKind) -> Result<bool, Refusal> {
        self.targets.cover(path, kind)
    }

    /// Whether the config says which modules have updates.
    pub(crate) fn names_targets(&self) -> bool {
        self.targets.are_known()
    }

    /// Whether the update of the embedding also applies to the lm_head, on a base with tied
    /// embeddings.
    pub(crate) fn ties_updates(&self) -> Result<bool, Refusal> {
        Ok(self.ensure_weight_tying && !self.saves_an_embedding() && self.targets.name_an_embedding()?)
    }

    /// Whether the saved embedding also replaces the lm_head, on a base with tied embeddings.
    pub(crate) fn ties_saved(&self) -> bool {
        self.ensure_weight_tying && self.saves_an_embedding()
    }

    fn saves_an_embedding(&self) -> bool {
        self.modules_to_save
            .iter()
            .any(|name| targets::is_embedding(name))
    }
}

/// Parses the contents of `adapter_config.json`.
///
/// # Errors
/// If the bytes are not JSON, or not the config of a LoRA (or of a variant that is converted to
/// LoRA) for a causal language model, or if a setting is out of range, unsupported or unknown.
pub fn parse_config(bytes: &[u8]) -> Result<PeftConfig, Refusal> {
    if bytes.len() > CONFIG_LIMIT {
        return Err(Refusal::ConfigTooLarge {
            size: bytes.len(),
            limit: CONFIG_LIMIT,
        });
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|e| Refusal::NotJson(e.to_string()))?;
    let map = value.as_object().ok_or(Refusal::NotAnObject)?;
    let fields = Fields(map);
    let peft_type = fields.text("peft_type")?.ok_or(Refusal::NoPeftType)?;
    let kind = Kind::of(peft_type).ok_or_else(|| Refusal::PeftType {
        found: peft_type.to_owned(),
        reason: variants::why_not(peft_type),
    })?;
    match fields.text("task_type")? {
        None | Some("CAUSAL_LM") => {}
        Some(other) => return Err(Refusal::TaskType(other.to_owned())),
    }
    unsupported::check(map, kind)?;
    if kind == Kind::Lora {
        check_init(fields)?;
    }
    let modules_to_save = fields.texts("modules_to_save")?;
    let config = PeftConfig {
        kind,
        base_model: fields
            .text("base_model_name_or_path")?
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        peft_version: fields.text("peft_version")?.map(str::to_owned),
        rslora: fields.flag("use_rslora")?,
        dora: fields.flag("use_dora")?,
        lora_bias: fields.flag("lora_bias")?,
        bias: bias(fields)?,
        token_indices: token_indices(fields)?,
        ensure_weight_tying: fields.flag("ensure_weight_tying")?,
        invocation: invocation(fields)?,
        warnings: warnings(fields),
        rank: default_rank(fields, kind)?,
        alpha: fields
            .get(kind.alpha())
            .map_or(Ok(DEFAULT_ALPHA), |value| value::number(kind.alpha(), value))?,
        ranks: match kind {
            // AdaLoRA's `rank_pattern` says which ranks were kept, not how many.
            Kind::AdaLora => Overrides::default(),
            _ => overrides(fields, "rank_pattern", rank)?,
        },
        alphas: overrides(fields, "alpha_pattern", value::number)?,
        targets: Targets::parse(fields, &modules_to_save)?,
        converted: None,
        modules_to_save,
    };
    if config.dora && config.lora_bias {
        return Err(Refusal::Contradiction(
            "use_dora and lora_bias are both set, which PEFT does not allow",
        ));
    }
    let is_more = config.dora
        || config.bias != Bias::None
        || config.token_indices.is_some()
        || !config.modules_to_save.is_empty()
        || kind != Kind::Lora;
    if !config.invocation.is_empty() && is_more {
        return Err(INVOKED_ALONE);
    }
    Ok(config)
}

/// The rank of modules that no pattern matches.
fn default_rank(fields: Fields<'_>, kind: Kind) -> Result<usize, Refusal> {
    let (field, default) = match kind {
        Kind::AdaLora => ("init_r", 12),
        Kind::Vera => ("r", 256),
        _ => ("r", DEFAULT_RANK),
    };
    fields.get(field).map_or(Ok(default), |value| rank(field, value))
}

/// The largest number of invocation tokens. They are searched for in every prompt.
const INVOCATION_LIMIT: usize = 1024;

/// An adapter that starts within a sequence can only hold updates of linear maps. PEFT has the same
/// restriction.
pub(crate) const INVOKED_ALONE: Refusal = Refusal::Contradiction(
    "alora_invocation_tokens is set, which goes with low-rank updates of linear maps alone: not with use_dora, bias, \
     modules_to_save, trainable_token_indices or an update of the embedding",
);

fn invocation(fields: Fields<'_>) -> Result<Vec<u32>, Refusal> {
    let field = "alora_invocation_tokens";
    let tokens = fields
        .get(field)
        .map_or(Ok(Vec::new()), |value| value::indices(field, value))?;
    match tokens.len() > INVOCATION_LIMIT {
        true => Err(Refusal::FieldRange {
            field: field.to_owned(),
            found: format!("{} tokens", tokens.len()),
            range: format!("at most {INVOCATION_LIMIT} tokens"),
        }),
        false => Ok(tokens),
    }
}

fn rank(field: &str, value: &Value) -> Result<usize, Refusal> {
    let number = value
        .as_i64()
        .ok_or_else(|| value::wrong_type(field, value, "an integer"))?;
    usize::try_from(number)
        .ok()
        .filter(|rank| (1..=RANK_LIMIT).contains(rank))
        .ok_or_else(|| Refusal::FieldRange {
            field: field.to_owned(),
            found: number.to_string(),
            range: format!("from 1 to {RANK_LIMIT}"),
        })
}

fn overrides<T: Copy>(
    fields: Fields<'_>,
    field: &'static str,
    parse: impl Fn(&str, &Value) -> Result<T, Refusal>,
) -> Result<Overrides<T>, Refusal> {
    let entry = |(key, value)| Ok((key, parse(&format!("{field}[{key}]"), value)?));
    let entries = fields
        .entries(field)?
        .into_iter()
        .map(entry)
        .collect::<Result<_, Refusal>>()?;
    Overrides::new(field, entries)
}

fn bias(fields: Fields<'_>) -> Result<Bias, Refusal> {
    match fields.text("bias")? {
        None | Some("none" | "") => Ok(Bias::None),
        Some("all") => Ok(Bias::All),
        Some("lora_only" | "vera_only") => Ok(Bias::LoraOnly),
        Some(other) => Err(value::wrong_type(
            "bias",
            &Value::from(other),
            "none, all or lora_only",
        )),
    }
}

fn token_indices(fields: Fields<'_>) -> Result<Option<TokenIndices>, Refusal> {
    let field = "trainable_token_indices";
    let indices = match fields.get(field) {
        None => return Ok(None),
        Some(Value::Object(map)) => {
            let entry = |(name, value): (&String, &Value)| Ok((name.clone(), value::indices(field, value)?));
            TokenIndices::ByName(map.iter().map(entry).collect::<Result<_, Refusal>>()?)
        }
        Some(Value::Array(items)) if items.is_empty() => return Ok(None),
        Some(list) => TokenIndices::Embedding(value::indices(field, list)?),
    };
    Ok(Some(indices))
}

/// Refuses initialisations that change the base's weights. PEFT changes the base again when it
/// loads such an adapter; on the unchanged base its answers would be wrong.
fn check_init(fields: Fields<'_>) -> Result<(), Refusal> {
    let Some(Value::String(init)) = fields.get("init_lora_weights") else {
        return Ok(());
    };
    let kind = init.to_ascii_lowercase();
    if !["pissa", "olora", "corda", "lora_ga", "loftq"]
        .iter()
        .any(|k| kind.starts_with(k))
    {
        return Ok(());
    }
    Err(Refusal::UnsupportedField {
        field: "init_lora_weights".to_owned(),
        found: init.clone(),
        reason: "it changes the base's weights; save the adapter with PEFT's save_pretrained(…, \
                 path_initial_model_for_weight_conversion=…), which makes it an ordinary one",
    })
}

/// Warnings about unusual settings that are applied.
fn warnings(fields: Fields<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    if fields.get("lora_alpha").and_then(Value::as_f64) == Some(0.0) {
        warnings.push("lora_alpha is 0: the low-rank updates have no effect".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(config: &Value) -> Result<PeftConfig, Refusal> {
        parse_config(config.to_string().as_bytes())
    }

    #[test]
    fn scaling_uses_the_rank_and_alpha_of_each_module() {
        let mut config = json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 8,
            "rank_pattern": {"layers.1.*q_proj": 16, "o_proj": 2}, "alpha_pattern": {"layers.1.*q_proj": 3, "v_proj": 5.5},
        });
        let plain = parse(&config).unwrap();
        assert_eq!(plain.rank("model.layers.1.self_attn.q_proj"), Ok(16));
        assert_eq!(plain.scaling("model.layers.1.self_attn.q_proj"), Ok(3.0 / 16.0));
        assert_eq!(plain.scaling("model.layers.0.self_attn.o_proj"), Ok(4.0));
        assert_eq!(plain.scaling("model.layers.0.self_attn.v_proj"), Ok(5.5 / 4.0));
        assert_eq!(plain.scaling("model.layers.0.self_attn.q_proj"), Ok(2.0));
        config["use_rslora"] = json!(true);
        let rslora = parse(&config).unwrap();
        assert_eq!(rslora.scaling("model.layers.1.self_attn.q_proj"), Ok(0.75));
        assert_eq!(rslora.scaling("model.layers.0.self_attn.q_proj"), Ok(4.0));
    }

    #[test]
    fn what_is_absent_has_pefts_defaults() {
        let config = parse(&json!({"peft_type": "LORA"})).unwrap();
        assert_eq!((config.rank("x"), config.scaling("x")), (Ok(8), Ok(1.0)));
        assert!(!config.dora && !config.rslora && !config.lora_bias && config.bias == Bias::None);
        assert!(!config.names_targets());
    }

    #[test]
    fn inits_that_change_the_base_are_refused() {
        for init in ["pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "loftq"] {
            let refusal = parse(&json!({"peft_type": "LORA", "init_lora_weights": init})).unwrap_err();
            assert!(refusal.to_string().contains(init), "{refusal}");
        }
        for init in [
            json!(true),
            json!(false),
            json!("gaussian"),
            json!("eva"),
            json!("orthogonal"),
            json!("mica"),
        ] {
            let config = parse(&json!({"peft_type": "LORA", "init_lora_weights": init})).unwrap();
            assert_eq!(config.warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        let deep = "[".repeat(100_000);
        assert!(matches!(parse_config(deep.as_bytes()), Err(Refusal::NotJson(_))));
        let inside = format!(r#"{{"peft_type":"LORA","eva_config":{deep}"#);
        assert!(matches!(
            parse_config(inside.as_bytes()),
            Err(Refusal::NotJson(_))
        ));
    }
}
