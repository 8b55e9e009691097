//! Exports an adapter as llama.cpp's converter writes it: low-rank updates only, with one alpha for
//! all.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use multigraft_model::{Config, LinearDelta, LinearId, LowRank, Matrix, ModelFiles, Module, ModuleKind};
use multigraft_weights::Tensor;
use multigraft_weights::gguf::{self, Pair};

use super::plain::{Plain, encode, smallest};
use super::{ExportError, failed};
use crate::base::BaseShape;
use crate::info::AdapterFile;
use crate::read::read_for;

const FORM: &str = "GGUF for llama.cpp";

pub(super) fn write(
    adapter: &AdapterFile,
    files: &ModelFiles,
    config: &Config,
    base: &BaseShape,
    path: &Path,
) -> Result<(), ExportError> {
    let architecture = base
        .gguf_architecture()
        .ok_or_else(|| cannot("llama.cpp has no name for the base's architecture"))?;
    let updates = updates(adapter, files, config, base)?;
    let alphas: Vec<f32> = updates
        .iter()
        .map(|(_, update)| update.scaling * update.a.rows as f32)
        .collect();
    let alpha = most_frequent(&alphas)
        .ok_or_else(|| cannot("it has no low-rank updates, or only such without effect"))?;
    let mut tensors = Vec::new();
    for ((module, update), own) in updates.iter().zip(&alphas) {
        let weight = format!("{}.weight", module.path);
        let name = config
            .gguf_name(&weight)
            .ok_or_else(|| cannot(format!("llama.cpp has no name for {}", module.path)))?;
        let mut b = in_order(&update.b, module, base);
        if own.to_bits() != alpha.to_bits() {
            // There is one alpha for all modules; the difference is multiplied into B.
            b.values.iter_mut().for_each(|value| *value *= own / alpha);
        }
        let a = match module.kind {
            ModuleKind::Embedding => transposed(&update.a),
            _ => update.a.clone(),
        };
        tensors.push(Plain::matrix(format!("{name}.lora_a"), &a));
        tensors.push(Plain::matrix(format!("{name}.lora_b"), &b));
    }
    let storage = smallest(&tensors);
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| encode(tensor.values.iter().copied(), storage))
        .collect();
    let views: Vec<Tensor<'_>> = tensors
        .iter()
        .zip(&bytes)
        .map(|(tensor, bytes)| Tensor {
            name: &tensor.name,
            shape: &tensor.shape,
            block_type: storage,
            bytes,
        })
        .collect();
    let mut pairs = vec![
        ("general.architecture", Pair::Text(architecture)),
        ("general.type", Pair::Text("adapter")),
        ("adapter.type", Pair::Text("lora")),
        ("adapter.lora.alpha", Pair::F32(alpha)),
    ];
    if let Some(name) = &adapter.info.base_model {
        pairs.push(("general.base_model.count", Pair::U32(1)));
        pairs.push(("general.base_model.0.name", Pair::Text(name)));
    }
    let mut file = BufWriter::new(File::create_new(path).map_err(failed(path))?);
    gguf::write(&mut file, &pairs, &views)
        .and_then(|()| file.flush())
        .map_err(failed(path))?;
    read_for(path, base).map_err(|error| ExportError::Written(Box::new(error)))?;
    Ok(())
}

fn cannot(reason: impl Into<String>) -> ExportError {
    ExportError::Cannot {
        form: FORM,
        reason: reason.into(),
    }
}

/// All low-rank updates. Fails if the adapter holds anything else.
fn updates<'a>(
    adapter: &'a AdapterFile,
    files: &ModelFiles,
    config: &Config,
    base: &'a BaseShape,
) -> Result<Vec<(&'a Module, &'a LowRank)>, ExportError> {
    if !adapter.weights.invocation.is_empty() {
        return Err(cannot(
            "it sets in within a sequence (alora_invocation_tokens), which is not written for llama.cpp",
        ));
    }
    let mut updates = Vec::new();
    let is_copy = |name: &str, table: &Matrix| {
        let own = files.tensor(name, config);
        own.is_some_and(|own| own.to_f32() == table.values)
    };
    let embedding = "model.embed_tokens.weight";
    if let Some(delta) = &adapter.weights.embedding {
        if !delta.rows.is_empty()
            || delta
                .replaced
                .as_ref()
                .is_some_and(|table| !is_copy(embedding, table))
        {
            return Err(cannot("it replaces rows of the embedding or all of it"));
        }
        updates.extend(module(base, ModuleKind::Embedding).zip(delta.low_rank.as_ref()));
    }
    for (id, delta) in &adapter.weights.linears {
        let Some(module) = module(base, ModuleKind::Linear(*id)) else {
            return Err(cannot("it is for another base"));
        };
        let table = if base.tied() { embedding } else { "lm_head.weight" };
        if delta
            .replaced
            .as_ref()
            .is_some_and(|replaced| !is_copy(table, replaced))
            || !delta.rows.is_empty()
        {
            return Err(cannot("it replaces rows of the lm_head or all of it"));
        }
        if let Some(what) = beside(delta) {
            return Err(cannot(format!("it has {what} on {}", module.path)));
        }
        if *id == LinearId::LmHead && base.tied() && delta.low_rank.is_some() {
            return Err(cannot(
                "it changes the lm_head, which in this base is the embedding, so that llama.cpp has no name for it",
            ));
        }
        updates.extend(delta.low_rank.as_ref().map(|update| (module, update)));
    }
    Ok(updates)
}

fn module(base: &BaseShape, kind: ModuleKind) -> Option<&Module> {
    base.modules().iter().find(|module| module.kind == kind)
}

/// What a change of a linear map holds besides a low-rank update.
fn beside(delta: &LinearDelta) -> Option<&'static str> {
    let bias = delta.low_rank.as_ref().and_then(|update| update.bias.as_ref());
    [
        (delta.magnitude.is_some(), "DoRA's magnitude"),
        (delta.gain.is_some(), "scaled outputs (IA³)"),
        (delta.base_bias.is_some(), "a bias in the base's stead"),
        (bias.is_some(), "a bias of LoRA's own"),
    ]
    .into_iter()
    .find_map(|(is_there, what)| is_there.then_some(what))
}

fn most_frequent(alphas: &[f32]) -> Option<f32> {
    let count = |alpha: f32| {
        alphas
            .iter()
            .filter(|other| other.to_bits() == alpha.to_bits())
            .count()
    };
    let alphas = alphas.iter().copied().filter(|alpha| *alpha != 0.0);
    alphas.max_by(|one, other| count(*one).cmp(&count(*other)).then(one.total_cmp(other)))
}

/// Reorders the rows of B to GGUF's order.
fn in_order(b: &Matrix, module: &Module, base: &BaseShape) -> Matrix {
    let mut ordered = b.clone();
    for (row, values) in b.values.chunks_exact(b.cols).enumerate() {
        ordered.values[base.gguf_row(module, row) * b.cols..][..b.cols].copy_from_slice(values);
    }
    ordered
}

fn transposed(a: &Matrix) -> Matrix {
    let values = (0..a.cols)
        .flat_map(|col| a.values[col..].iter().step_by(a.cols).copied())
        .collect();
    Matrix {
        rows: a.cols,
        cols: a.rows,
        values,
    }
}
