//! Exports the base with the adapter merged into its weights: `W + s·B·A` and the adapter's other
//! changes, in the base's types.
//!
//! Each weight is computed while it is written, row by row in float64, so an export takes the
//! memory of one matrix. If the base's embeddings are tied and the adapter changes one of the two
//! tables, the result has two separate tables.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use multigraft_model::{Config, LinearDelta, LinearId, ModelFiles, Module, ModuleKind};
use multigraft_weights::Tensor;
use multigraft_weights::safetensors::Checkpoint;
use safetensors::tensor::View;
use serde_json::Value;

use super::changed::{Change, biases, cannot, check, linears};
use super::plain::dtype;
use super::{ExportError, failed};
use crate::base::{BaseShape, module_key};
use crate::info::AdapterFile;

const CONFIG: &str = "config.json";
/// File name extensions of the base's files that are copied: tokenizer, chat template, settings,
/// licence. Weights and adapters are not copied.
const COPIED: [&str; 5] = ["json", "txt", "model", "jinja", "tiktoken"];

pub(super) fn write(
    adapter: &AdapterFile,
    base: &Path,
    (checkpoint, text): (&Checkpoint, &str),
    config: &Config,
    shape: &BaseShape,
    folder: &Path,
) -> Result<(), ExportError> {
    if let Some((name, dtype, _)) = checkpoint.others().next() {
        return Err(cannot(format!(
            "tensor `{name}` of the base is of type {dtype}, which is not written"
        )));
    }
    let linears = linears(adapter);
    let embedding = adapter.weights.embedding.as_ref();
    let separate = config.tied_embeddings && (embedding.is_some() || linears.contains_key(&LinearId::LmHead));
    let overflowed = Mutex::new(None);
    let mut weights = Vec::new();
    for tensor in checkpoint.tensors() {
        let found = located(tensor.name, shape);
        let change = match found {
            Some((module, "weight")) => match module.kind {
                ModuleKind::Linear(LinearId::LmHead) if separate => continue,
                ModuleKind::Linear(id) => linears.get(&id).map(|delta| Change::Linear(delta)),
                ModuleKind::Embedding => embedding.map(Change::Embedding),
                ModuleKind::Fixed => None,
            },
            Some((module, "bias")) => match module.kind {
                ModuleKind::Linear(id) => linears.get(&id).map(|delta| Change::Bias(delta)),
                _ => None,
            },
            _ => None,
        };
        if let (Some((module, _)), Some(change)) = (found, &change) {
            check(&tensor, module, change)?;
        }
        if let Some((module, _)) =
            found.filter(|(module, _)| separate && module.kind == ModuleKind::Embedding)
        {
            let change = linears.get(&LinearId::LmHead).map(|delta| Change::Linear(delta));
            let wrapper = tensor.name.starts_with("language_model.");
            let name = if wrapper {
                "language_model.lm_head.weight"
            } else {
                "lm_head.weight"
            };
            check(&tensor, module, &Change::Linear(&LinearDelta::default()))?;
            weights.push(Weight {
                name: name.to_owned(),
                tensor,
                change,
                overflowed: &overflowed,
            });
        }
        weights.push(Weight {
            name: tensor.name.to_owned(),
            tensor,
            change,
            overflowed: &overflowed,
        });
    }
    biases(&linears, shape, |module| {
        checkpoint.tensors().any(|tensor| {
            located(tensor.name, shape).is_some_and(|(other, last)| other == module && last == "bias")
        })
    })?;

    fs::create_dir(folder).map_err(failed(folder))?;
    copy(base, folder)?;
    // These files take precedence over all other files that may hold the base's template.
    let sources = adapter
        .template
        .iter()
        .flat_map(|template| template.compiled.sources());
    for (name, source) in sources {
        let path = folder.join(name);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(failed(above))?;
        }
        fs::write(&path, source).map_err(failed(&path))?;
    }
    let path = folder.join(CONFIG);
    fs::write(&path, untied(text, separate)?).map_err(failed(&path))?;
    let path = folder.join("model.safetensors");
    let views: Vec<(String, &Weight<'_>)> = weights
        .iter()
        .map(|weight| (weight.name.clone(), weight))
        .collect();
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), &path).map_err(|source| {
        ExportError::Safetensors {
            path: path.clone(),
            source,
        }
    })?;
    if let Some(name) = overflowed
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
    {
        return Err(cannot(format!(
            "a number in `{name}` is beyond what the base's type holds"
        )));
    }
    let mut expected = config.clone();
    expected.tied_embeddings &= !separate;
    match ModelFiles::open(folder)?.config()? == expected {
        true => Ok(()),
        false => Err(cannot(
            "its config.json does not say that the embedding and the lm_head are two",
        )),
    }
}

/// The module of a tensor of the base, and the last segment of its name.
fn located<'a>(name: &'a str, shape: &'a BaseShape) -> Option<(&'a Module, &'a str)> {
    let (path, last) = name.rsplit_once('.')?;
    let position = shape.find(module_key(path).1)?;
    Some((&shape.modules()[position], last))
}

/// `config.json`, with `tie_word_embeddings` off if the tables are now separate.
fn untied(text: &str, separate: bool) -> Result<String, ExportError> {
    if !separate {
        return Ok(text.to_owned());
    }
    let mut config: Value = serde_json::from_str(text)
        .map_err(|error| cannot(format!("the base's config.json is no JSON: {error}")))?;
    if let Some(inner) = config.get_mut("text_config").and_then(Value::as_object_mut) {
        inner.insert("tie_word_embeddings".to_owned(), false.into());
    }
    if let Some(fields) = config.as_object_mut() {
        fields.insert("tie_word_embeddings".to_owned(), false.into());
    }
    Ok(format!("{config:#}\n"))
}

fn copy(base: &Path, folder: &Path) -> Result<(), ExportError> {
    for entry in fs::read_dir(base).map_err(failed(base))? {
        let path = entry.map_err(failed(base))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let wanted = path
            .extension()
            .and_then(OsStr::to_str)
            .is_some_and(|end| COPIED.contains(&end))
            || name.starts_with("LICENSE");
        let other = name.starts_with("adapter_") || name.ends_with(".index.json") || name == CONFIG;
        if wanted && !other && path.is_file() {
            fs::copy(&path, folder.join(name.as_ref())).map_err(failed(&path))?;
        }
    }
    Ok(())
}

/// A tensor to write. Its data is computed on demand.
struct Weight<'a> {
    name: String,
    tensor: Tensor<'a>,
    change: Option<Change<'a>>,
    /// The first tensor with a value that exceeds the range of its type.
    overflowed: &'a Mutex<Option<String>>,
}

impl View for &Weight<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        dtype(self.tensor.block_type)
    }

    fn shape(&self) -> &[usize] {
        self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let Some(change) = &self.change else {
            return Cow::Borrowed(self.tensor.bytes);
        };
        let changed = change.apply(&self.tensor, self.tensor.block_type, |row| row);
        Cow::Owned(changed.unwrap_or_else(|| {
            let mut overflowed = self
                .overflowed
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            overflowed.get_or_insert_with(|| self.name.clone());
            vec![0; self.tensor.bytes.len()]
        }))
    }

    fn data_len(&self) -> usize {
        self.tensor.bytes.len()
    }
}
