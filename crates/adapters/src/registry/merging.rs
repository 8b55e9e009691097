//! Merged adapters: made on the loaders' threads when they are first asked for, kept in memory like
//! others, but without a name. They go when a name no longer stands for one of their parts, for
//! nobody can ask for them then.

use std::path::PathBuf;
use std::sync::Arc;

use multigraft_model::{AdapterWeights, LinearDelta, LowRank, Throttle};
use multigraft_peft::{AdapterInfo, Ingredient, MergeError, MergeMethod, merge};
use multigraft_sources::{Fetched, Reference};
use tokio::sync::oneshot;

use super::load::{check, parse, read};
use super::memory::Held;
use super::recipe::{MergePart, Part, Recipe};
use super::state::Version;
use super::task::{Loaded, Task, failed};
use super::{Entry, Inner, LoadError, Lookup, Outcome, Registry, Waiting};
use crate::parts::ADAPTER_FILES;

/// Merged adapters that are kept, at most, unless more are in use.
const MERGED: usize = 16;

impl Registry {
    /// The adapter that `parts`, each with its weight, become by `method`. It is made if it is not
    /// in memory. Its name tells what it is made of.
    pub fn merged(&self, method: MergeMethod, parts: &[(MergePart, f64)]) -> Lookup {
        for (part, _) in parts {
            if let Some(what) = part.beside {
                let name = part.name.clone();
                return unavailable(MergeError::NotUpdates { name, what });
            }
        }
        let hash = method.hash(parts.iter().map(|(part, weight)| (part.hash, *weight)));
        let name = named(method, parts);
        let mut state = self.0.lock();
        let state = &mut *state;
        if let Some(resident) = state.memory.using(hash) {
            let nowhere = Reference::Folder(PathBuf::new());
            return Lookup::Ready(resident.held.clone().entry(name, hash, nowhere));
        }
        if state.waiting >= self.0.options.max_waiting {
            state.forget_gone();
        }
        if state.waiting >= self.0.options.max_waiting {
            let waiting = state.waiting;
            return Lookup::Unavailable(LoadError::TooManyWait { waiting });
        }
        let asked_as = name.clone();
        let mut recipe = Recipe {
            hash,
            name,
            method,
            parts: Vec::with_capacity(parts.len()),
        };
        for (part, weight) in parts {
            // Its own name's version: another's of the same files may be elsewhere.
            let own = state.names.get(&part.name);
            let own = own.and_then(|named| named.record.version_of(part.hash));
            let version = own.or_else(|| {
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
            // Loaders live as long as the registry.
            let _ = self.0.jobs.send(Task::Merge(recipe));
        }
        waiting.push((asked_as, reply));
        Lookup::Loading(Waiting(outcome))
    }
}

/// `a@0.5+b@1`, or `ties(a@0.5+b@1)`.
fn named(method: MergeMethod, parts: &[(MergePart, f64)]) -> String {
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
    /// Makes a merged adapter from its parts' files: what is packed cannot be read back.
    pub(super) fn make(&self, recipe: &Recipe, throttle: &Throttle) -> Result<Loaded, LoadError> {
        let mut ingredients = Vec::with_capacity(recipe.parts.len());
        for part in &recipe.parts {
            let files = read(&self.folder_of(&part.version)?, throttle)?;
            check(&files, part.hash).map_err(failed)?;
            ingredients.push(Ingredient {
                name: part.name.clone(),
                weight: part.weight,
                weights: parse(files, &self.packer.shape, throttle)?.weights,
            });
        }
        let weights = merge(recipe.method, recipe.hash, &ingredients, throttle);
        let weights = weights.map_err(|error| LoadError::Merge(Arc::new(error)))?;
        drop(ingredients);
        let info = info(recipe, &weights);
        let (packed, room) = self.pack(&PathBuf::from(&recipe.name), &weights, 0, throttle)?;
        Ok(Loaded {
            hash: recipe.hash,
            files: Fetched::default(),
            held: Held {
                packed,
                info: Arc::new(info),
                // Of several none is meant more than the others.
                template: None,
            },
            promised: room.keep(),
        })
    }

    /// Where a version's files are: what was brought here may have been deleted since.
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

    /// Puts a merged adapter into memory and tells those who wait for it.
    pub(super) fn settle_merge(&self, recipe: Recipe, made: Result<Loaded, LoadError>) {
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
            // Others may call the same files by other names.
            let outcome = outcome.clone().map(|entry| Entry { name, ..entry });
            let _ = reply.send(outcome);
        }
        // While nobody can look: it counts as used for as long as it is held here.
        drop(outcome);
        dropped.extend(state.drop_unnamed());
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
