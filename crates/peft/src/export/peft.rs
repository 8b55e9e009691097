//! Exports an adapter as PEFT saves it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use multigraft_model::{LinearId, LowRank, Module, ModuleKind};
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

use super::plain::{Plain, dtype, encode, smallest};
use super::{ExportError, failed};
use crate::base::BaseShape;
use crate::files::{CONFIG_FILE, WEIGHTS_FILE};
use crate::info::AdapterFile;
use crate::read::read_for;

const FORM: &str = "PEFT's LoRA";

pub(super) fn write(adapter: &AdapterFile, base: &BaseShape, folder: &Path) -> Result<(), ExportError> {
    let (config, tensors) = Parts::of(adapter, base)?.files(adapter, base)?;
    fs::create_dir(folder).map_err(failed(folder))?;
    let path = folder.join(CONFIG_FILE);
    fs::write(&path, format!("{config:#}\n")).map_err(failed(&path))?;
    let path = folder.join(WEIGHTS_FILE);
    let storage = smallest(&tensors);
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| encode(tensor.values.iter().copied(), storage))
        .collect();
    let wrong = |source| ExportError::Safetensors {
        path: path.clone(),
        source,
    };
    let mut views = Vec::new();
    for (tensor, bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(dtype(storage), tensor.shape.clone(), bytes).map_err(wrong)?;
        views.push((tensor.name.as_str(), view));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), &path).map_err(wrong)?;
    if let Some(template) = &adapter.template {
        let path = folder.join(template.file);
        fs::write(&path, &template.bytes).map_err(failed(&path))?;
    }
    let read = read_for(folder, base).map_err(|error| ExportError::Written(Box::new(error)))?;
    match read.weights.linears == adapter.weights.linears
        && read.weights.embedding == adapter.weights.embedding
        && read.weights.invocation == adapter.weights.invocation
    {
        true => Ok(()),
        false => Err(cannot(
            "it changes the embedding and the lm_head in ways that exclude each other there",
        )),
    }
}

fn cannot(reason: impl Into<String>) -> ExportError {
    ExportError::Cannot {
        form: FORM,
        reason: reason.into(),
    }
}

/// The contents of the exported files.
#[derive(Default)]
struct Parts<'a> {
    tensors: Vec<Plain>,
    /// Modules with updates, with rank and alpha.
    updates: Vec<(&'a Module, usize, f64)>,
    /// For each update of a linear map: whether it has a bias, and a DoRA magnitude.
    lora_bias: Vec<bool>,
    dora: Vec<bool>,
    /// Modules whose biases are replaced.
    biased: Vec<&'a str>,
    saved: Vec<&'static str>,
    tokens: Map<String, Value>,
}

impl<'a> Parts<'a> {
    fn of(adapter: &AdapterFile, base: &'a BaseShape) -> Result<Self, ExportError> {
        let mut parts = Self::default();
        let embedding = adapter.weights.embedding.as_ref();
        let head = adapter
            .weights
            .linears
            .iter()
            .find(|(id, _)| *id == LinearId::LmHead)
            .map(|(_, delta)| delta);
        if let Some(delta) = embedding {
            let module = module(base, ModuleKind::Embedding)?;
            let prefix = format!("base_model.model.{}", module.path);
            if let Some(update) = &delta.low_rank {
                parts
                    .tensors
                    .push(Plain::matrix(format!("{prefix}.lora_embedding_A"), &update.a));
                parts
                    .tensors
                    .push(Plain::matrix(format!("{prefix}.lora_embedding_B"), &update.b));
                parts.update(module, update);
            }
            // With tied embeddings, a copy beside the update of one table is a copy for both.
            let head_has_copy = base.tied()
                && head.is_some_and(|head| head.low_rank.is_some() && head.replaced == delta.replaced);
            if let Some(table) = delta.replaced.as_ref().filter(|_| !head_has_copy) {
                let name = parts.whole(&prefix, "embed_tokens", delta.low_rank.is_some());
                parts.tensors.push(Plain::matrix(name, table));
            }
            parts.rows(&prefix, "embed_tokens", &delta.rows);
        }
        for (id, delta) in &adapter.weights.linears {
            let module = module(base, ModuleKind::Linear(*id))?;
            let prefix = format!("base_model.model.{}", module.path);
            if delta.gain.is_some() {
                return Err(cannot(format!(
                    "it scales the outputs of {} (IA³); export it merged into its base",
                    module.path
                )));
            }
            if let Some(update) = &delta.low_rank {
                parts
                    .tensors
                    .push(Plain::matrix(format!("{prefix}.lora_A.weight"), &update.a));
                parts
                    .tensors
                    .push(Plain::matrix(format!("{prefix}.lora_B.weight"), &update.b));
                parts.update(module, update);
                parts.lora_bias.push(update.bias.is_some());
                parts.dora.push(delta.magnitude.is_some());
                let vectors = [
                    ("lora_B.bias", &update.bias),
                    ("lora_magnitude_vector", &delta.magnitude),
                ];
                for (name, values) in vectors {
                    let tensor = values
                        .as_ref()
                        .map(|values| Plain::vector(format!("{prefix}.{name}"), values));
                    parts.tensors.extend(tensor);
                }
            }
            if let Some(bias) = &delta.base_bias {
                let inside = if delta.low_rank.is_some() {
                    ".base_layer"
                } else {
                    ""
                };
                parts
                    .tensors
                    .push(Plain::vector(format!("{prefix}{inside}.bias"), bias));
                parts.biased.push(&module.path);
            }
            let embedding_has_copy = base.tied()
                && embedding
                    .is_some_and(|other| other.low_rank.is_some() && other.replaced == delta.replaced);
            let copy_of_embedding = embedding_has_copy && delta.low_rank.is_none();
            if let Some(table) = delta.replaced.as_ref().filter(|_| !copy_of_embedding) {
                let name = parts.whole(&prefix, "lm_head", delta.low_rank.is_some());
                parts.tensors.push(Plain::matrix(name, table));
            }
            // With tied embeddings, the rows of the embedding are the rows of the lm_head too.
            let shared = base.tied() && embedding.is_some_and(|embedding| embedding.rows == delta.rows);
            if !shared {
                parts.rows(&prefix, "lm_head", &delta.rows);
            }
        }
        Ok(parts)
    }

    fn update(&mut self, module: &'a Module, update: &LowRank) {
        // Exact: the product of a 24-bit significand and a 13-bit integer fits float64.
        let alpha = f64::from(update.scaling) * update.a.rows as f64;
        self.updates.push((module, update.a.rows, alpha));
    }

    /// The name of a whole table: a copy beside an update, or a module of `modules_to_save`.
    fn whole(&mut self, prefix: &str, module: &'static str, is_updated: bool) -> String {
        if is_updated {
            return format!("{prefix}.base_layer.weight");
        }
        self.saved.push(module);
        format!("{prefix}.weight")
    }

    fn rows(&mut self, prefix: &str, module: &str, rows: &[(u32, Vec<f32>)]) {
        let Some((_, first)) = rows.first() else {
            return;
        };
        let tokens: Vec<u32> = rows.iter().map(|(token, _)| *token).collect();
        self.tokens.insert(module.to_owned(), json!(tokens));
        self.tensors.push(Plain {
            name: format!("{prefix}.token_adapter.trainable_tokens_delta"),
            shape: vec![rows.len(), first.len()],
            values: rows.iter().flat_map(|(_, row)| row).copied().collect(),
        });
    }

    fn files(self, adapter: &AdapterFile, base: &BaseShape) -> Result<(Value, Vec<Plain>), ExportError> {
        let Some((rank, alpha)) = self.most_frequent() else {
            return Err(cannot("it has no low-rank updates"));
        };
        let patterns = |value: &dyn Fn(usize, f64) -> Option<Value>| -> Map<String, Value> {
            let updates = self.updates.iter();
            updates
                .filter_map(|(module, r, a)| Some((module.path.clone(), value(*r, *a)?)))
                .collect()
        };
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": adapter.info.base_model,
            "inference_mode": true,
            "r": rank,
            "lora_alpha": number(alpha),
            "rank_pattern": patterns(&|r, _| (r != rank).then(|| json!(r))),
            "alpha_pattern": patterns(&|_, a| (a.to_bits() != alpha.to_bits()).then(|| number(a))),
            "use_rslora": false,
            "use_dora": all_or_none(&self.dora).ok_or_else(|| cannot("only some of its updates have DoRA's magnitude"))?,
            "lora_bias": all_or_none(&self.lora_bias).ok_or_else(|| cannot("only some of its updates have a bias"))?,
            "bias": self.bias(base)?,
            "target_modules": self.targets(base),
            "modules_to_save": self.saved,
            "trainable_token_indices": if self.tokens.is_empty() { Value::Null } else { self.tokens.clone().into() },
            "alora_invocation_tokens": if adapter.weights.invocation.is_empty() { Value::Null } else { json!(adapter.weights.invocation) },
            "lora_dropout": 0.0,
            "fan_in_fan_out": false,
            "init_lora_weights": true,
        });
        Ok((config, self.tensors))
    }

    /// The most frequent pair of rank and alpha.
    fn most_frequent(&self) -> Option<(usize, f64)> {
        let mut counts: HashMap<(usize, u64), usize> = HashMap::new();
        for (_, rank, alpha) in &self.updates {
            *counts.entry((*rank, alpha.to_bits())).or_default() += 1;
        }
        let best = counts.into_iter().max_by_key(|(key, count)| (*count, *key));
        best.map(|((rank, alpha), _)| (rank, f64::from_bits(alpha)))
    }

    /// PEFT's `bias` setting for the biases that are replaced.
    fn bias(&self, base: &BaseShape) -> Result<&'static str, ExportError> {
        let biased = |wanted: &dyn Fn(&Module) -> bool| {
            base.modules()
                .iter()
                .all(|module| (module.bias && wanted(module)) == self.biased.contains(&module.path.as_str()))
        };
        let is_updated = |module: &Module| {
            self.updates
                .iter()
                .any(|(updated, ..)| updated.path == module.path)
        };
        if self.biased.is_empty() {
            Ok("none")
        } else if biased(&|_| true) {
            Ok("all")
        } else if biased(&is_updated) {
            Ok("lora_only")
        } else {
            Err(cannot("it replaces some biases and not others"))
        }
    }

    /// `target_modules`: the name if all modules of that name have an update, otherwise the paths.
    fn targets(&self, base: &BaseShape) -> Vec<String> {
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let mut targets: Vec<String> = Vec::new();
        for (module, ..) in &self.updates {
            let name = last(&module.path);
            let of_name = base
                .modules()
                .iter()
                .filter(|other| last(&other.path) == name)
                .count();
            let updated = self
                .updates
                .iter()
                .filter(|(other, ..)| last(&other.path) == name)
                .count();
            let target = if of_name == updated {
                name
            } else {
                module.path.clone()
            };
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }
}

fn module(base: &BaseShape, kind: ModuleKind) -> Result<&Module, ExportError> {
    let module = base.modules().iter().find(|module| module.kind == kind);
    module.ok_or_else(|| cannot("it is for another base"))
}

/// Writes whole numbers without a decimal point, as is usual for alpha.
fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 1e9 {
        true => json!(value as i64),
        false => json!(value),
    }
}

fn all_or_none(flags: &[bool]) -> Option<bool> {
    let any = flags.contains(&true);
    (any != flags.contains(&false) || flags.is_empty()).then_some(any)
}
