//! Exports a GGUF base with the adapter merged into the weights that it changes.
//!
//! A changed weight that was quantised is stored as bfloat16: quantising it a second time would
//! lose the change. All other tensors and the metadata are copied unchanged.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use multigraft_model::{Config, LinearId, ModelFiles, Module, ModuleKind};
use multigraft_weights::gguf::{Gguf, Planned, write_like};
use multigraft_weights::{BlockType, Tensor};

use super::changed::{Change, Linears, biases, cannot, check, linears};
use super::{ExportError, failed};
use crate::base::BaseShape;
use crate::info::AdapterFile;

/// GGUF's name of the lm_head. If there is no such tensor, the embedding is the lm_head.
const HEAD: &str = "output.weight";

/// A tensor to write.
struct Weight<'a> {
    name: &'a str,
    tensor: Tensor<'a>,
    change: Option<(&'a Module, Change<'a>)>,
}

impl Weight<'_> {
    fn block_type(&self) -> BlockType {
        match (self.change.is_some(), self.tensor.block_type) {
            (false, own) | (true, own @ (BlockType::F32 | BlockType::F16 | BlockType::Bf16)) => own,
            (true, _) => BlockType::Bf16,
        }
    }
}

pub(super) fn write(
    adapter: &AdapterFile,
    gguf: &Gguf,
    config: &Config,
    shape: &BaseShape,
    path: &Path,
) -> Result<(), ExportError> {
    let linears = linears(adapter);
    let embedding = adapter.weights.embedding.as_ref();
    let head = linears.get(&LinearId::LmHead);
    let parts = config.tied_embeddings && (embedding.is_some() || head.is_some());
    biases(&linears, shape, |module| {
        let name = config.gguf_name(&format!("{}.bias", module.path));
        name.is_some_and(|name| gguf.tensor(&name).is_some())
    })?;
    let mut weights = Vec::new();
    for tensor in gguf.tensors() {
        let change = change_of(tensor.name, shape, &linears).or_else(|| {
            let module = shape.find_gguf(tensor.name)?;
            let embedding = embedding.filter(|_| module.kind == ModuleKind::Embedding)?;
            Some((module, Change::Embedding(embedding)))
        });
        if let Some((module, change)) = &change {
            check(&tensor, module, change)?;
        }
        let name = tensor.name;
        let is_embedding = shape
            .find_gguf(name)
            .is_some_and(|module| module.kind == ModuleKind::Embedding);
        weights.push(Weight { name, tensor, change });
        if parts && is_embedding {
            let module = shape
                .modules()
                .iter()
                .find(|module| module.kind == ModuleKind::Embedding);
            let change = module.zip(head.map(|delta| Change::Linear(delta)));
            weights.push(Weight {
                name: HEAD,
                tensor,
                change,
            });
        }
    }
    let planned: Vec<Planned<'_>> = weights
        .iter()
        .map(|weight| Planned {
            name: weight.name,
            shape: weight.tensor.shape,
            block_type: weight.block_type(),
        })
        .collect();
    let data = |index: usize| {
        let weight: &Weight<'_> = &weights[index];
        let Some((module, change)) = &weight.change else {
            return Ok(Cow::Borrowed(weight.tensor.bytes));
        };
        let rows = rows(module, shape);
        let changed = change.apply(&weight.tensor, weight.block_type(), |row| {
            *rows.get(row).unwrap_or(&row)
        });
        let broken = || {
            io::Error::other(format!(
                "a number in `{}` is beyond what its type holds",
                weight.name
            ))
        };
        changed.map(Cow::Owned).ok_or_else(broken)
    };
    let mut file = BufWriter::new(File::create_new(path).map_err(failed(path))?);
    write_like(&mut file, gguf, &planned, data)
        .and_then(|()| file.flush())
        .map_err(failed(path))?;
    let mut expected = config.clone();
    expected.tied_embeddings &= !parts;
    match ModelFiles::open(path)?.config()? == expected {
        true => Ok(()),
        false => Err(cannot("what was written describes another model")),
    }
}

/// How a linear map's weight or bias changes.
fn change_of<'a>(
    name: &str,
    shape: &'a BaseShape,
    linears: &Linears<'a>,
) -> Option<(&'a Module, Change<'a>)> {
    let (path, last) = name.rsplit_once('.')?;
    let module = shape.find_gguf(&format!("{path}.weight"))?;
    let ModuleKind::Linear(id) = module.kind else {
        return None;
    };
    let delta = linears.get(&id)?;
    match last {
        "weight" => Some((module, Change::Linear(delta))),
        "bias" => Some((module, Change::Bias(delta))),
        _ => None,
    }
}

/// The module's row at each row of its tensor.
fn rows(module: &Module, shape: &BaseShape) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..module.out).collect();
    for row in 0..module.out {
        rows[shape.gguf_row(module, row)] = row;
    }
    rows
}
