//! Finding a checkpoint's files in a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::Checkpoint;
use crate::bytes::{Access, FileBytes};
use crate::error::{Fault, WeightsError};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The largest index that is parsed; that of a model with a hundred thousand tensors has 10 MB.
const INDEX_LIMIT: u64 = 100_000_000;
/// What pickled weights are called.
const PICKLES: [&str; 4] = ["bin", "pt", "pth", "ckpt"];

/// See [`Checkpoint::open_folder`].
pub(super) fn open(folder: &Path) -> Result<Checkpoint, WeightsError> {
    let names = file_names(folder)?;
    let has = |name: &str| names.iter().any(|n| n == name);
    if has(SINGLE) {
        return open_all(folder, &[SINGLE.to_owned()]);
    }
    if has(INDEX) {
        return open_sharded(folder);
    }
    let with_extension = |wanted: &[&str]| -> Vec<String> {
        let is_wanted = |name: &&String| {
            Path::new(name)
                .extension()
                .and_then(|e| e.to_str())
                .is_some_and(|e| wanted.contains(&e))
        };
        names.iter().filter(is_wanted).cloned().collect()
    };
    let safetensors = with_extension(&["safetensors"]);
    if !safetensors.is_empty() {
        return open_all(folder, &safetensors);
    }
    // Other tools leave small .bin files about (training_args.bin): the weights are the ones called
    // model.
    let pickles = with_extension(&PICKLES);
    if let Some(name) = pickles
        .iter()
        .find(|name| name.contains("model"))
        .or(pickles.first())
    {
        return Err(WeightsError::Pickled {
            path: folder.join(name),
        });
    }
    let hint = with_extension(&["gguf"])
        .first()
        .map(|name| {
            format!(
                "; for the GGUF model give the file itself: {}",
                folder.join(name).display()
            )
        })
        .unwrap_or_default();
    Err(WeightsError::NoWeights {
        path: folder.to_owned(),
        hint,
    })
}

/// The names of all entries, sorted; names that are not UTF-8 are none of ours.
fn file_names(folder: &Path) -> Result<Vec<String>, WeightsError> {
    let fail = |source| WeightsError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        names.extend(entry.map_err(fail)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn open_all(folder: &Path, names: &[String]) -> Result<Checkpoint, WeightsError> {
    let mut checkpoint = Checkpoint::empty(folder);
    for name in names {
        let path = folder.join(name);
        let bytes = FileBytes::open(&path, Access::ReadSmall)?;
        checkpoint.add(&path, bytes, |_| true)?;
    }
    Ok(checkpoint)
}

#[derive(Deserialize)]
struct Index {
    /// Tensor → file.
    weight_map: BTreeMap<String, String>,
}

fn open_sharded(folder: &Path) -> Result<Checkpoint, WeightsError> {
    let index_path = folder.join(INDEX);
    let index = read_index(&index_path)?;
    let mut by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &index.weight_map {
        if !is_plain_name(shard) {
            let fault = Fault::BadShardName {
                tensor: tensor.clone(),
                shard: shard.clone(),
            };
            return Err(fault.in_file(&index_path));
        }
        by_shard.entry(shard).or_default().push(tensor);
    }
    let mut checkpoint = Checkpoint::empty(folder);
    for (shard, tensors) in by_shard {
        let path = folder.join(shard);
        if !path.exists() {
            let tensor = tensors[0].to_owned();
            return Err(WeightsError::MissingShard {
                index: index_path,
                shard: path,
                tensor,
            });
        }
        let bytes = FileBytes::open(&path, Access::ReadSmall)?;
        checkpoint.add(&path, bytes, |name| {
            index.weight_map.get(name).is_some_and(|s| s == shard)
        })?;
        if let Some(missing) = tensors.iter().find(|name| checkpoint.located(name).is_none()) {
            return Err(Fault::MissingFromShard((*missing).to_owned()).in_file(&path));
        }
    }
    Ok(checkpoint)
}

fn read_index(path: &Path) -> Result<Index, WeightsError> {
    let bytes = FileBytes::open(path, Access::ReadSmall)?;
    let len = bytes.len() as u64;
    if len > INDEX_LIMIT {
        let what = "the index".to_owned();
        return Err(Fault::TooLong {
            what,
            len,
            limit: INDEX_LIMIT,
        }
        .in_file(path));
    }
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| {
        Fault::BadJson {
            what: "the index",
            reason: e.to_string(),
        }
        .in_file(path)
    })?;
    if index.weight_map.is_empty() {
        return Err(Fault::EmptyIndex.in_file(path));
    }
    Ok(index)
}

/// Whether `name` is a file of the same folder on every system: no separator, no drive, no `..`.
fn is_plain_name(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
}
