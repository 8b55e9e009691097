//! Reads adapters in llama.cpp's format, as its `convert_lora_to_gguf.py` writes them.
//!
//! An adapter is one GGUF file with `general.type` = `adapter`, `adapter.type` = `lora` and
//! `adapter.lora.alpha`. Each low-rank update has two tensors, named after the base's weight with a
//! suffix:
//!
//! | tensor | shape, outermost first |
//! |---|---|
//! | `….lora_a` | `[rank, in]`; of `token_embd.weight` `[vocab, rank]` |
//! | `….lora_b` | `[out, rank]`; of `token_embd.weight` `[hidden, rank]` |
//!
//! The scaling is alpha divided by the rank of each pair. For queries and keys, the rows of B have
//! the order of the base's GGUF file, which differs from that of transformers for some
//! architectures. They are reordered here to that of transformers.

use std::borrow::Cow;
use std::collections::HashMap;

use multigraft_model::{Module, ModuleKind};
use multigraft_weights::gguf::{Gguf, Metadata, Value};
use multigraft_weights::{BlockType, Tensor};

use crate::base::BaseShape;
use crate::config::{Converted, PeftConfig, RANK_LIMIT};
use crate::derived::Derived;
use crate::refusal::Refusal;

const A: &str = ".lora_a";
const B: &str = ".lora_b";
const ALPHA: &str = "adapter.lora.alpha";
const PROMPT_PREFIX: &str = "adapter.lora.prompt_prefix";
/// Metadata that an adapter may have: its type, its scaling, and hints for clients.
const KNOWN: [&str; 4] = ["adapter.type", ALPHA, "adapter.lora.task_name", PROMPT_PREFIX];

/// Whether a GGUF file says that it is an adapter.
pub(crate) fn is_adapter(gguf: &Gguf) -> bool {
    gguf.metadata().str("general.type") == Some("adapter")
}

/// The low-rank updates under PEFT's names and in transformers' order, and the config to read them
/// by.
pub(crate) fn updates<'a>(
    gguf: &'a Gguf,
    base: &BaseShape,
) -> Result<(PeftConfig, Vec<Derived<'a>>), Refusal> {
    let alpha = check(gguf.metadata(), base)?;
    let mut derived = Vec::new();
    let mut updates = HashMap::new();
    for tensor in gguf.tensors() {
        let (weight, end) = match (tensor.name.strip_suffix(A), tensor.name.strip_suffix(B)) {
            (Some(weight), _) => (weight, A),
            (_, Some(weight)) => (weight, B),
            _ => return Err(Refusal::UnknownPart(tensor.name.to_owned())),
        };
        let module = base
            .find_gguf(weight)
            .ok_or_else(|| Refusal::NoModule(tensor.name.to_owned()))?;
        if end == B {
            let rank = rank(&tensor)?;
            updates.insert(module.path.clone(), (rank, (alpha / rank as f64) as f32));
        }
        derived.push(as_peft(tensor, end, module, base)?);
    }
    let converted = Converted {
        from: "GGUF",
        updates,
    };
    let config = PeftConfig::of_gguf(converted, base_model(gguf.metadata()), warnings(gguf.metadata()));
    Ok((config, derived))
}

/// Checks the metadata and returns alpha.
fn check(metadata: &Metadata, base: &BaseShape) -> Result<f64, Refusal> {
    for (key, wanted, what) in [
        ("general.type", "adapter", "general.type"),
        ("adapter.type", "lora", "adapter.type"),
    ] {
        match metadata.get(key) {
            None => return Err(Refusal::MissingField(what)),
            Some(Value::String(found)) if found == wanted => {}
            Some(found) => return Err(out_of_range(key, found, &format!("`{wanted}`"))),
        }
    }
    for (key, value) in metadata.iter().filter(|(key, _)| key.starts_with("adapter.")) {
        if key.starts_with("adapter.alora.") {
            return Err(Refusal::UnsupportedField {
                field: key.to_owned(),
                found: shown(value),
                reason: "aLoRA, an adapter that sets in at a token sequence",
            });
        }
        if !KNOWN.contains(&key) {
            return Err(Refusal::UnknownField {
                field: key.to_owned(),
                found: shown(value),
            });
        }
    }
    let found = metadata
        .str("general.architecture")
        .ok_or(Refusal::MissingField("general.architecture"))?;
    match base.gguf_architecture() {
        Some(architecture) if architecture == found => {}
        other => {
            return Err(Refusal::Architecture {
                found: found.to_owned(),
                base: other.unwrap_or("one that GGUF does not name").to_owned(),
            });
        }
    }
    let alpha = metadata.get(ALPHA).ok_or(Refusal::MissingField(ALPHA))?;
    match metadata.f32(ALPHA) {
        // llama.cpp takes 0 as "no scaling", PEFT as "no effect".
        Some(alpha) if alpha.is_finite() && alpha != 0.0 => Ok(f64::from(alpha)),
        _ => Err(out_of_range(ALPHA, alpha, "a finite float other than 0")),
    }
}

fn out_of_range(key: &str, found: &Value, range: &str) -> Refusal {
    Refusal::FieldRange {
        field: key.to_owned(),
        found: shown(found),
        range: range.to_owned(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

/// The rank, from the shape of B.
fn rank(b: &Tensor<'_>) -> Result<usize, Refusal> {
    match *b.shape {
        [_, rank] if (1..=RANK_LIMIT).contains(&rank) => Ok(rank),
        _ => Err(Refusal::Shape {
            tensor: b.name.to_owned(),
            found: b.shape.to_vec(),
            expected: vec![b.rows(), RANK_LIMIT],
        }),
    }
}

/// The tensor under PEFT's name and in PEFT's layout.
fn as_peft<'a>(
    tensor: Tensor<'a>,
    end: &str,
    module: &Module,
    base: &BaseShape,
) -> Result<Derived<'a>, Refusal> {
    let is_embedding = module.kind == ModuleKind::Embedding;
    let (part, tensor) = match (end, is_embedding) {
        (A, false) => ("lora_A.weight", Derived::borrowed(tensor)),
        (A, true) => ("lora_embedding_A", transposed(tensor)),
        (_, false) => ("lora_B.weight", in_order(tensor, module, base)),
        (_, true) => ("lora_embedding_B", Derived::borrowed(tensor)),
    };
    Ok(tensor.renamed(format!("base_model.model.{}.{part}", module.path)))
}

/// Reorders the rows of B to transformers' order. Blocks never cross rows, so whole rows can be
/// moved in any storage type.
fn in_order<'a>(tensor: Tensor<'a>, module: &Module, base: &BaseShape) -> Derived<'a> {
    let rows = tensor.rows();
    let is_moved = rows == module.out && (0..rows).any(|row| base.gguf_row(module, row) != row);
    let mut derived = Derived::borrowed(tensor);
    if is_moved {
        let size = tensor.bytes.len() / rows;
        let row = |row| &tensor.bytes[base.gguf_row(module, row) * size..][..size];
        derived.bytes = Cow::Owned((0..rows).flat_map(row).copied().collect());
    }
    derived
}

fn transposed(tensor: Tensor<'_>) -> Derived<'_> {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let values = tensor.to_f32();
    let values = (0..cols).flat_map(|col| values[col..].iter().step_by(cols.max(1)).take(rows));
    let mut derived = Derived::borrowed(tensor);
    derived.shape = vec![cols, rows];
    derived.block_type = BlockType::F32;
    derived.bytes = Cow::Owned(values.flat_map(|value| value.to_le_bytes()).collect());
    derived
}

fn base_model(metadata: &Metadata) -> Option<String> {
    let name = metadata.str("general.base_model.0.name")?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn warnings(metadata: &Metadata) -> Vec<String> {
    let prefix = metadata.str(PROMPT_PREFIX).filter(|prefix| !prefix.is_empty());
    let warning = |prefix| {
        format!(
            "{PROMPT_PREFIX} is {}: clients have to put it in front of their prompts",
            crate::refusal::Quoted(prefix)
        )
    };
    prefix.map(warning).into_iter().collect()
}
