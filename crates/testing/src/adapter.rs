//! Hand-made PEFT adapters, valid and invalid ones.

use std::path::Path;

use serde_json::{Value, json};

/// Hidden size of the small base that the adapters are for.
pub const HIDDEN: usize = 6;
/// Intermediate size of its MLPs.
pub const WIDTH: usize = 8;
/// Size of its vocabulary.
pub const VOCAB: usize = 10;
/// Number of its decoder layers.
pub const LAYERS: usize = 2;

/// A hand-made PEFT adapter.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// `adapter_config.json`.
    pub config: Value,
    /// Name, shape and values of each tensor.
    pub tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    /// Written instead of `config`.
    pub raw_config: Option<Vec<u8>>,
    /// Written instead of `tensors`.
    pub raw_tensors: Option<Vec<u8>>,
}

impl Adapter {
    /// Rank 2 on every q_proj and down_proj, as PEFT saves it.
    pub fn good() -> Self {
        let mut adapter = Self::empty();
        adapter.config["target_modules"] = json!(["q_proj", "down_proj"]);
        for layer in 0..LAYERS {
            adapter.lora(&format!("model.layers.{layer}.self_attn.q_proj"), HIDDEN, HIDDEN);
            adapter.lora(&format!("model.layers.{layer}.mlp.down_proj"), HIDDEN, WIDTH);
        }
        adapter
    }

    /// An adapter without tensors.
    pub fn empty() -> Self {
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

    /// Adds A and B of rank 2 for the module at `path`.
    pub fn lora(&mut self, path: &str, out: usize, inp: usize) {
        self.tensor(&format!("{path}.lora_A.weight"), &[2, inp]);
        self.tensor(&format!("{path}.lora_B.weight"), &[out, 2]);
    }

    /// Adds A and B of rank 2 for the embedding.
    pub fn lora_embedding(&mut self) {
        self.tensor("model.embed_tokens.lora_embedding_A", &[2, VOCAB]);
        self.tensor("model.embed_tokens.lora_embedding_B", &[HIDDEN, 2]);
    }

    /// Adds a tensor whose values differ from each other and from those of other tensors, under
    /// PEFT's prefix.
    pub fn tensor(&mut self, name: &str, shape: &[usize]) {
        self.raw_tensor(&format!("base_model.model.{name}"), shape);
    }

    /// As [`Adapter::tensor`], with exactly this name.
    pub fn raw_tensor(&mut self, name: &str, shape: &[usize]) {
        let seed = self.tensors.len() as f32 + 1.0;
        let values = (0..shape.iter().product())
            .map(|i: usize| (i as f32 + 1.0) / 64.0 + seed)
            .collect();
        self.tensors.push((name.to_owned(), shape.to_vec(), values));
    }

    /// Removes the tensors whose names end with `end`.
    ///
    /// # Panics
    /// If there are none.
    pub fn remove(&mut self, end: &str) {
        let before = self.tensors.len();
        self.tensors.retain(|(name, _, _)| !name.ends_with(end));
        assert!(self.tensors.len() < before, "no tensor ends with {end}");
    }

    /// The first tensor whose name ends with `end`.
    ///
    /// # Panics
    /// If there is none.
    pub fn find(&mut self, end: &str) -> &mut (String, Vec<usize>, Vec<f32>) {
        let found = self.tensors.iter_mut().find(|(name, _, _)| name.ends_with(end));
        found.expect("no tensor has a name that ends so")
    }

    /// Changes a tensor's shape and fills it with equal values.
    pub fn reshape(&mut self, end: &str, shape: &[usize]) {
        let tensor = self.find(end);
        tensor.1 = shape.to_vec();
        tensor.2 = vec![0.5; shape.iter().product()];
    }

    /// Replaces `from` in all tensor names.
    pub fn rename(&mut self, from: &str, to: &str) {
        for (name, _, _) in &mut self.tensors {
            *name = name.replace(from, to);
        }
    }

    /// The values of the first tensor whose name ends with `end`.
    ///
    /// # Panics
    /// If there is none.
    pub fn values(&self, end: &str) -> Vec<f32> {
        let found = self.tensors.iter().find(|(name, _, _)| name.ends_with(end));
        found.expect("no tensor has a name that ends so").2.clone()
    }

    /// Creates the folder and writes both files.
    ///
    /// # Panics
    /// If the folder or a file cannot be written.
    pub fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("a folder for the adapter");
        let config = self
            .raw_config
            .clone()
            .unwrap_or_else(|| self.config.to_string().into_bytes());
        std::fs::write(folder.join("adapter_config.json"), config).expect("room for a small file");
        let tensors = self.raw_tensors.clone().unwrap_or_else(|| self.safetensors());
        std::fs::write(folder.join("adapter_model.safetensors"), tensors).expect("room for a small file");
    }

    /// The tensors as a safetensors file, in float32.
    pub fn safetensors(&self) -> Vec<u8> {
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
}

/// A safetensors file of tensors, given as name, dtype, shape and bytes.
pub fn safetensors(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
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
