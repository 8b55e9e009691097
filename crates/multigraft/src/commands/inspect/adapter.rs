//! The contents of an adapter, and whether it fits a base.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, Result};
use multigraft_model::ModelFiles;
use multigraft_peft::{AdapterInfo, BaseShape, gguf_file, parse_config, read_for};
use multigraft_weights::{gguf::Gguf, safetensors::Checkpoint};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{locate::Located, memory::Bytes};

/// Facts about an adapter.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    path: String,
    /// The base that it was checked against.
    base: Option<String>,
    /// Facts about it on that base.
    info: Option<AdapterInfo>,
    /// Its configuration, if no base is given.
    config: Option<Value>,
    tensors: usize,
    parameters: usize,
    /// The reason, if it cannot be served (on that base).
    pub refusal: Option<String>,
}

pub(super) fn report(path: &Path, base: Option<&Located>) -> Result<Report> {
    let mut report = Report {
        path: path.display().to_string(),
        base: base.map(|base| base.path.display().to_string()),
        info: None,
        config: None,
        tensors: 0,
        parameters: 0,
        refusal: None,
    };
    match base {
        Some(base) => {
            let config = ModelFiles::open(&base.path)?.config()?;
            let shape = BaseShape::new(&config).named(&base.title);
            match read_for(path, &shape) {
                Ok(file) => {
                    report.tensors = file.info.tensors;
                    report.parameters = file.info.parameters;
                    report.info = Some(file.info);
                }
                Err(error) => report.refusal = Some(error.to_string()),
            }
        }
        None => match gguf_file(path)? {
            Some(file) => llama_cpp(&mut report, &Gguf::open(&file)?),
            None => peft(&mut report, path)?,
        },
    }
    Ok(report)
}

/// Reads the metadata of an adapter in llama.cpp's format.
fn llama_cpp(report: &mut Report, gguf: &Gguf) {
    let metadata = gguf.metadata();
    let mut config = Map::new();
    for key in [
        "general.name",
        "general.architecture",
        "general.base_model.0.name",
    ] {
        if let Some(text) = metadata.str(key) {
            config.insert(key.to_owned(), text.into());
        }
    }
    if let Some(alpha) = metadata.f32("adapter.lora.alpha") {
        config.insert("adapter.lora.alpha".to_owned(), alpha.into());
    }
    report.config = Some(config.into());
    report.tensors = gguf.tensors().count();
    report.parameters = gguf.tensors().map(|tensor| tensor.len()).sum();
}

/// Reads the files of a PEFT adapter.
fn peft(report: &mut Report, path: &Path) -> Result<()> {
    let config = path.join("adapter_config.json");
    let text = fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    report.refusal = parse_config(text.as_bytes())
        .err()
        .map(|refusal| refusal.to_string());
    report.config =
        Some(serde_json::from_str(&text).with_context(|| format!("{} is not JSON", config.display()))?);
    let weights = Checkpoint::open_file(&path.join("adapter_model.safetensors"))?;
    report.tensors = weights.tensors().count();
    report.parameters = weights.tensors().map(|tensor| tensor.len()).sum();
    Ok(())
}

/// The fields of the configuration that are shown, and their names.
const SHOWN_FIELDS: [(&str, &str); 12] = [
    ("general.name", "name"),
    ("general.architecture", "architecture"),
    ("general.base_model.0.name", "trained on"),
    ("adapter.lora.alpha", "alpha"),
    ("base_model_name_or_path", "trained on"),
    ("peft_version", "saved by PEFT"),
    ("r", "rank"),
    ("lora_alpha", "alpha"),
    ("target_modules", "targets"),
    ("use_rslora", "rsLoRA"),
    ("use_dora", "DoRA"),
    ("modules_to_save", "saved modules"),
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "adapter     {}", self.path)?;
        if let Some(info) = &self.info {
            writeln!(f, "{info}")?;
        }
        if let Some(config) = &self.config {
            for (field, name) in SHOWN_FIELDS {
                match config.get(field) {
                    None | Some(Value::Null | Value::Bool(false)) => {}
                    Some(Value::String(text)) => writeln!(f, "{name:<14}{text}")?,
                    Some(value) => writeln!(f, "{name:<14}{value}")?,
                }
            }
        }
        if self.tensors > 0 {
            let (bf16, f32) = (Bytes::from(self.parameters * 2), Bytes::from(self.parameters * 4));
            writeln!(f, "memory      {bf16} as bf16, {f32} as f32")?;
        }
        match (&self.base, &self.refusal) {
            (Some(base), None) => write!(f, "fits        {base}"),
            (Some(base), Some(reason)) => write!(f, "does not fit {base}:\n  {reason}"),
            (None, Some(reason)) => write!(f, "cannot be served:\n  {reason}"),
            (None, None) => write!(
                f,
                "fits        unknown; check it against a base with --base MODEL"
            ),
        }
    }
}
