//! Adapters made by hand, for a small base made by hand.
#![allow(dead_code, reason = "not every test file uses all of it")]

pub(crate) mod place;

use std::path::Path;

use multigraft_adapters::{AdapterError, AdapterFile, BaseShape, read_for};
use multigraft_model::{LinearId, Module, ModuleKind, Target};
use serde_json::{Value, json};

pub(crate) const HIDDEN: usize = 6;
pub(crate) const WIDTH: usize = 8;
pub(crate) const VOCAB: usize = 10;
pub(crate) const LAYERS: usize = 2;

/// Two layers with q (biased), o, up and down, a router, norms, both tables.
pub(crate) fn base(tied: bool) -> BaseShape {
    let module = |path: String, kind, out, inp, bias| Module {
        path,
        kind,
        out,
        inp,
        bias,
    };
    let mut modules = vec![module(
        "model.embed_tokens".into(),
        ModuleKind::Embedding,
        VOCAB,
        HIDDEN,
        false,
    )];
    for layer in 0..LAYERS {
        let mut linear = |name: &str, target, out, inp, bias| {
            let kind = ModuleKind::Linear(LinearId::Layer { layer, target });
            modules.push(module(
                format!("model.layers.{layer}.{name}"),
                kind,
                out,
                inp,
                bias,
            ));
        };
        linear("self_attn.q_proj", Target::Q, HIDDEN, HIDDEN, true);
        linear("self_attn.o_proj", Target::O, HIDDEN, HIDDEN, false);
        linear("mlp.up_proj", Target::Up, WIDTH, HIDDEN, false);
        linear("mlp.down_proj", Target::Down, HIDDEN, WIDTH, false);
        for (name, out, inp) in [("mlp.gate", 4, HIDDEN), ("input_layernorm", HIDDEN, 1)] {
            modules.push(module(
                format!("model.layers.{layer}.{name}"),
                ModuleKind::Fixed,
                out,
                inp,
                false,
            ));
        }
    }
    modules.push(module("model.norm".into(), ModuleKind::Fixed, HIDDEN, 1, false));
    modules.push(module(
        "lm_head".into(),
        ModuleKind::Linear(LinearId::LmHead),
        VOCAB,
        HIDDEN,
        false,
    ));
    BaseShape::from_modules(modules, tied).named("acme/tiny")
}

/// An adapter's files before they are written.
#[derive(Clone)]
pub(crate) struct Adapter {
    pub(crate) config: Value,
    pub(crate) tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    /// Written instead of `config`.
    pub(crate) raw_config: Option<Vec<u8>>,
    /// Written instead of `tensors`.
    pub(crate) raw_tensors: Option<Vec<u8>>,
}

impl Adapter {
    /// Rank 2 on every q_proj and down_proj, as PEFT saves it.
    pub(crate) fn good() -> Self {
        let mut adapter = Self::empty();
        adapter.config["target_modules"] = json!(["q_proj", "down_proj"]);
        for layer in 0..LAYERS {
            adapter.lora(&format!("model.layers.{layer}.self_attn.q_proj"), HIDDEN, HIDDEN);
            adapter.lora(&format!("model.layers.{layer}.mlp.down_proj"), HIDDEN, WIDTH);
        }
        adapter
    }

    /// Nothing yet.
    pub(crate) fn empty() -> Self {
        let config = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "bias": "none",
            "target_modules": [], "base_model_name_or_path": "acme/tiny", "peft_version": "0.21.2",
        });
        Self {
            config,
            tensors: Vec::new(),
            raw_config: None,
            raw_tensors: None,
        }
    }

    /// A and B of rank 2.
    pub(crate) fn lora(&mut self, path: &str, out: usize, inp: usize) {
        self.tensor(&format!("{path}.lora_A.weight"), &[2, inp]);
        self.tensor(&format!("{path}.lora_B.weight"), &[out, 2]);
    }

    /// A and B of an update of the embedding, of rank 2.
    pub(crate) fn lora_embedding(&mut self) {
        self.tensor("model.embed_tokens.lora_embedding_A", &[2, VOCAB]);
        self.tensor("model.embed_tokens.lora_embedding_B", &[HIDDEN, 2]);
    }

    /// A tensor of numbers that differ from each other and from those of other tensors, under
    /// PEFT's prefix.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize]) {
        self.raw_tensor(&format!("base_model.model.{name}"), shape);
    }

    /// The same under exactly this name.
    pub(crate) fn raw_tensor(&mut self, name: &str, shape: &[usize]) {
        let seed = self.tensors.len() as f32 + 1.0;
        let values = (0..shape.iter().product())
            .map(|i: usize| (i as f32 + 1.0) / 64.0 + seed)
            .collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), values));
    }

    pub(crate) fn remove(&mut self, end: &str) {
        let before = self.tensors.len();
        self.tensors.retain(|(name, _, _)| !name.ends_with(end));
        assert!(self.tensors.len() < before, "no tensor ends with {end}");
    }

    pub(crate) fn find(&mut self, end: &str) -> &mut (String, Vec<usize>, Vec<f32>) {
        self.tensors
            .iter_mut()
            .find(|(name, _, _)| name.ends_with(end))
            .unwrap()
    }

    /// Gives a tensor another shape, and numbers to fill it.
    pub(crate) fn reshape(&mut self, end: &str, shape: &[usize]) {
        let tensor = self.find(end);
        tensor.1 = shape.to_vec();
        tensor.2 = vec![0.5; shape.iter().product()];
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        for (name, _, _) in &mut self.tensors {
            *name = name.replace(from, to);
        }
    }

    pub(crate) fn values(&self, end: &str) -> Vec<f32> {
        self.tensors
            .iter()
            .find(|(name, _, _)| name.ends_with(end))
            .unwrap()
            .2
            .clone()
    }

    pub(crate) fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let config = self
            .raw_config
            .clone()
            .unwrap_or_else(|| self.config.to_string().into_bytes());
        std::fs::write(folder.join("adapter_config.json"), config).unwrap();
        let tensors = self.raw_tensors.clone().unwrap_or_else(|| self.safetensors());
        std::fs::write(folder.join("adapter_model.safetensors"), tensors).unwrap();
    }

    /// The tensors in safetensors' format, as float32.
    pub(crate) fn safetensors(&self) -> Vec<u8> {
        let part = |(name, shape, values): &'_ (String, Vec<usize>, Vec<f32>)| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name.clone(), shape.clone(), bytes)
        };
        let parts: Vec<_> = self.tensors.iter().map(part).collect();
        let parts: Vec<_> = parts
            .iter()
            .map(|(name, shape, bytes)| (name.as_str(), "F32", shape.as_slice(), bytes.clone()))
            .collect();
        safetensors(&parts)
    }

    pub(crate) fn read(&self, base: &BaseShape) -> Result<AdapterFile, AdapterError> {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        read_for(folder.path(), base)
    }

    /// The message of the refusal, with `DIR` for the folder.
    pub(crate) fn refusal(&self, base: &BaseShape) -> String {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        match read_for(folder.path(), base) {
            Ok(file) => panic!("was taken: {:?}", file.info),
            Err(error) => message(&error, folder.path()),
        }
    }
}

/// A file of tensors: name, dtype, shape, bytes.
pub(crate) fn safetensors(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(
            (*name).to_owned(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}),
        );
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string().into_bytes();
    [(header.len() as u64).to_le_bytes().as_slice(), &header, &data].concat()
}

/// An error's text, with `DIR` for a folder that changes from run to run.
pub(crate) fn message(error: &AdapterError, folder: &Path) -> String {
    error.to_string().replace(&folder.display().to_string(), "DIR")
}
