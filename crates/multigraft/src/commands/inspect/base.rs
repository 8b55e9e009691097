//! The contents of a base model.

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::Result;
use multigraft_model::{Config, ModelFiles, config::FfnConfig};
use multigraft_text::{ChatTemplate, Tokenizer};
use serde::Serialize;

use crate::{commands::serve::count, memory::Bytes};

/// Facts about a base model.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    path: String,
    name: Option<String>,
    architecture: String,
    parameters: u64,
    /// Bytes of the weights in the file, by their type.
    storage: BTreeMap<String, u64>,
    layers: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    context: usize,
    experts: Option<usize>,
    /// Bytes of keys and values for each token of a sequence, as float32.
    kv_bytes_per_token: u64,
    tokenizer: Part,
    chat_template: Part,
}

/// Whether a part exists and can be used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Usable(String),
    Missing,
    Unusable(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable(what) => f.write_str(what),
            Self::Missing => f.write_str("none"),
            Self::Unusable(why) => write!(f, "cannot be used: {why}"),
        }
    }
}

pub(super) fn report(path: &Path, files: &ModelFiles) -> Result<Report> {
    let config = files.config()?;
    let mut storage = BTreeMap::new();
    let mut parameters = 0;
    for tensor in files.tensors() {
        parameters += tensor.len() as u64;
        *storage.entry(format!("{:?}", tensor.block_type)).or_default() += tensor.bytes.len() as u64;
    }
    let (tokenizer, template) = match files {
        ModelFiles::Gguf(gguf) => (
            Tokenizer::from_gguf(gguf.metadata()),
            ChatTemplate::from_gguf(gguf.metadata()),
        ),
        ModelFiles::Folder { .. } => (Tokenizer::from_folder(path), ChatTemplate::from_folder(path)),
    };
    Ok(Report {
        path: path.display().to_string(),
        name: files.name(),
        parameters,
        storage,
        layers: config.layers.len(),
        hidden: config.hidden,
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        vocab: config.vocab,
        context: config.context,
        experts: experts(&config),
        kv_bytes_per_token: (2 * config.layers.len() * config.kv_heads * config.head_dim * size_of::<f32>())
            as u64,
        tokenizer: match tokenizer {
            Ok(tokenizer) => Part::Usable(format!("{} tokens", tokenizer.vocab_size())),
            Err(error) => Part::Unusable(error.to_string()),
        },
        chat_template: match template {
            Ok(Some(_)) => Part::Usable("yes".to_owned()),
            Ok(None) => Part::Missing,
            Err(error) => Part::Unusable(error.to_string()),
        },
        architecture: config.architecture,
    })
}

fn experts(config: &Config) -> Option<usize> {
    config.layers.iter().find_map(|layer| match layer.ffn {
        FfnConfig::Experts { count, .. } => Some(count),
        FfnConfig::Dense { .. } => None,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "base model     {}", self.path)?;
        writeln!(f, "name           {}", self.name.as_deref().unwrap_or("unknown"))?;
        writeln!(f, "architecture   {}", self.architecture)?;
        writeln!(f, "parameters     {}", count(self.parameters))?;
        for (storage, bytes) in &self.storage {
            writeln!(f, "  as {storage:<10}  {}", Bytes(*bytes))?;
        }
        write!(
            f,
            "layers         {}\nhidden size    {}\nheads          {} of {}, keys and values {}\n",
            self.layers, self.hidden, self.heads, self.head_dim, self.kv_heads
        )?;
        if let Some(experts) = self.experts {
            writeln!(f, "experts        {experts}")?;
        }
        writeln!(f, "vocabulary     {} tokens", self.vocab)?;
        writeln!(f, "context        {} tokens", self.context)?;
        let whole = self.kv_bytes_per_token * self.context as u64;
        writeln!(
            f,
            "KV memory      {} for each token of a sequence, {} for a whole context",
            Bytes(self.kv_bytes_per_token),
            Bytes(whole)
        )?;
        writeln!(f, "tokenizer      {}", self.tokenizer)?;
        write!(f, "chat template  {}", self.chat_template)
    }
}
