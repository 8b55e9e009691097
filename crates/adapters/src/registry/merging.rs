//! Merged adapters. The loaders make them on first use. They are kept in memory like other
//! adapters, but without a name, and removed when a name no longer stands for one of their parts,
//! because no request can ask for them then.

use std::path::PathBuf;
use std::sync::Arc;

use multigraft_model::{AdapterWeights, LinearDelta, LowRank, Throttle};
use multigraft_peft::{AdapterInfo, MergeError, MergeInput, MergeMethod, merge};
use multigraft_sources::{Fetched, Reference};
use tokio::sync::oneshot;

use super::load::{check, parse, read};
use super::memory::Held;
use super::recipe::{MergePart, Part, Recipe};
use super::state::Version;
use super::task::{Loaded, Task, failed};
use super::{Entry, Inner, LoadError, Lookup, Outcome, Registry, Waiting};
use crate::parts::ADAPTER_FILES;

/// Limit of idle merged adapters.
const MERGED: usize = 16;

impl Registry {
    /// The adapter that results from merging weighted `parts` with `method`. It is made if it is
    /// not in memory. Its name is composed of the names of its parts.
    pub fn merged(&self, method: MergeMethod, parts: &[(MergePart, f64)]) -> Lookup {
        for (part, _) in parts {
            if let Some(what) = part.beside {
                let name = part.name.clone();
                return unavailable(MergeError::NotUpdates { name, what });
            }
        }
        let hash = method.hash(parts.iter().map(|(part, weight)| (part.hash, *weight)));
        let name = merged_name(method, parts);
        let mut state = self.0.lock();
        let state = &mut *state;
        if let Some(resident) = state.memory.touch(hash) {
            let nowhere = Reference::Folder(PathBuf::new());
            return Lookup::Ready(resident.held.clone().entry(name, hash, nowhere));
        }
        if state.waiting >= self.0.options.max_waiting {
            state.forget_closed();
        }
        if state.waiting >= self.0.options.max_waiting {
            let waiting = state.waiting;
            return Lookup::Unavailable(LoadError::TooManyWait { waiting });
        }
        let requested_name = name.clone();
        let mut recipe = Recipe {
            hash,
            name,
            method,
            parts: Vec::with_capacity(parts.len()),
        };
        for (part, weight) in parts {
            // The version of the part's own name is preferred: the files of another name may be
            // elsewhere.
            let named = state.names.get(&part.name);
            let version = named.and_then(|named| named.record.version_of(part.hash));
            let version = version.or_else(|| {
                state
                    .names
                    .values()
                    .find_map(|named| named.record.version_of(part.hash))
            });
            let Some(version) = version else {
                return Lookup::Unavailable(LoadError::Removed);
            };
            recipe.parts.push(Part {
                name: part.name.clone(),
                hash: part.hash,
                version: version.clone(),
                weight: *weight,
            });
        }
        let (reply, outcome) = oneshot::channel();
        state.waiting += 1;
        let waiting = state.merging.entry(hash).or_default();
        if waiting.is_empty() {
            // The loaders run as long as the registry exists.
            let _ = self.0.jobs.send(Task::Merge(recipe));
        }
        waiting.push((requested_name, reply));
        Lookup::Loading(Waiting(outcome))
    }
}

/// Formats the name: `a@0.5+b@1`, or `ties(a@0.5+b@1)`.
fn merged_name(method: MergeMethod, parts: &[(MergePart, f64)]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .map(|(part, weight)| format!("{}@{weight}", part.name))
        .collect();
    match method {
        MergeMethod::Sum => parts.join("+"),
        _ => format!("{}({})", method.name(), parts.join("+")),
    }
}

fn unavailable(error: MergeError) -> Lookup {
    Lookup::Unavailable(LoadError::Merge(Arc::new(error)))
}

impl Inner {
    /// Makes a merged adapter from the files of its parts, because ready adapters cannot be
    /// converted back.
    pub(super) fn merge(&self, recipe: &Recipe, throttle: &Throttle) -> Result<Loaded, LoadError> {
        let mut inputs = Vec::with_capacity(recipe.parts.len());
        for part in &recipe.parts {
            let files = read(&self.folder_of(&part.version)?, throttle)?;
            check(&files, part.hash).map_err(failed)?;
            inputs.push(MergeInput {
                name: part.name.clone(),
                weight: part.weight,
                weights: parse(files, &self.packer.shape, throttle)?.weights,
            });
        }
        let weights = merge(recipe.method, recipe.hash, &inputs, throttle);
        let weights = weights.map_err(|error| LoadError::Merge(Arc::new(error)))?;
        drop(inputs);
        let info = info(recipe, &weights);
        let (packed, room) = self.pack(&PathBuf::from(&recipe.name), &weights, 0, throttle)?;
        Ok(Loaded {
            hash: recipe.hash,
            files: Fetched::default(),
            held: Held {
                packed,
                info: Arc::new(info),
                // No template of the parts takes precedence.
                template: None,
            },
            promised: room.keep(),
        })
    }

    /// The folder with a version's files. Downloaded files may have been deleted since, and are
    /// downloaded again.
    fn folder_of(&self, version: &Version) -> Result<PathBuf, LoadError> {
        if let Some(folder) = version.folder.as_ref().filter(|folder| folder.is_dir()) {
            return Ok(folder.clone());
        }
        let fetched =
            self.options
                .fetcher
                .fetch(&version.source, version.revision.as_deref(), &ADAPTER_FILES);
        Ok(fetched.map_err(|error| failed(error.into()))?.folder)
    }

    /// Inserts a merged adapter into memory and sends it to everyone who waits for it.
    pub(super) fn complete_merge(&self, recipe: Recipe, made: Result<Loaded, LoadError>) {
        match &made {
            Ok(_) => tracing::info!(adapter = recipe.name, hash = %recipe.hash, "adapters were merged"),
            Err(error) => {
                tracing::warn!(adapter = recipe.name, "adapters could not be merged: {error}");
            }
        }
        let mut state = self.lock();
        let hash = recipe.hash;
        let mut dropped = Vec::new();
        let outcome: Outcome = made.map(|made| {
            let parts = recipe.hashes();
            let held = state.memory.insert(hash, made.held, parts);
            state.memory.unreserve(made.promised);
            dropped = state.memory.bound_merged(MERGED);
            held.entry(recipe.name, hash, Reference::Folder(PathBuf::new()))
        });
        let replies = state.merging.remove(&hash).unwrap_or_default();
        state.waiting -= replies.len();
        for (name, reply) in replies {
            // Other requests may have composed the same adapter from other names.
            let outcome = outcome.clone().map(|entry| Entry { name, ..entry });
            let _ = reply.send(outcome);
        }
        // Dropped under the lock: as long as the outcome exists, the adapter counts as in use.
        drop(outcome);
        dropped.extend(state.remove_unnamed());
        drop(state);
        drop(dropped);
        self.changed();
    }
}

fn info(recipe: &Recipe, weights: &AdapterWeights) -> AdapterInfo {
    let linears = weights
        .linears
        .iter()
        .filter_map(|(_, LinearDelta { low_rank, .. })| low_rank.as_ref());
    let embedding = weights
        .embedding
        .as_ref()
        .and_then(|delta| delta.low_rank.as_ref());
    let updates: Vec<&LowRank> = linears.chain(embedding).collect();
    let ranks = updates.iter().map(|update| update.a.rows);
    AdapterInfo {
        hash: recipe.hash.to_string(),
        base_model: None,
        peft_version: None,
        ranks: ranks.clone().min().zip(ranks.max()),
        targets: Vec::new(),
        layers: Vec::new(),
        features: vec![format!("merged by {}", recipe.method.name())],
        tensors: 2 * updates.len(),
        parameters: updates
            .iter()
            .map(|update| update.a.values.len() + update.b.values.len())
            .sum(),
        bytes: 0,
        warnings: Vec::new(),
        chat_template: None,
        effect: None,
    }
}
