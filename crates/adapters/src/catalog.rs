//! The names that are served, and the adapters that they stand for.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use multigraft_model::{AdapterDtype, AdapterHash, AdapterWeights, Model, ModelError, PackedAdapter};

use crate::base::BaseShape;
use crate::error::AdapterError;
use crate::files::{AdapterFiles, CONFIG};
use crate::info::AdapterInfo;

/// The longest name, in bytes.
const NAME_LIMIT: usize = 128;
/// Names that mean the base, whatever it is called: TGI's clients call every base so.
const RESERVED: [&str; 1] = ["tgi"];

/// An adapter to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name to serve it under.
    pub name: String,
    /// Where its files are.
    pub folder: PathBuf,
}

/// What [`Source::in_folder`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The adapters, by name.
    pub sources: Vec<Source>,
    /// Sentences about the sub-folders that are none.
    pub skipped: Vec<String>,
}

impl Source {
    /// The adapters in a folder of folders: every sub-folder with an `adapter_config.json`, called as the sub-folder is. Links
    /// that lead out of the folder are not followed.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn in_folder(folder: &Path) -> Result<Found, AdapterError> {
        let fail = |source| AdapterError::Read {
            path: folder.to_owned(),
            source,
        };
        let root = folder.canonicalize().map_err(fail)?;
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(fail)? {
            paths.push(entry.map_err(fail)?.path());
        }
        paths.sort();
        let mut found = Found::default();
        for path in paths.into_iter().filter(|path| path.is_dir()) {
            let mut skip = |why: &str| {
                found
                    .skipped
                    .push(format!("`{}` was skipped: {why}", path.display()))
            };
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                skip("its name is not UTF-8");
                continue;
            };
            if !path.join(CONFIG).exists() {
                skip("it holds no adapter_config.json");
            } else if !path.canonicalize().is_ok_and(|target| target.starts_with(&root)) {
                skip("it is a link that leads out of the folder");
            } else {
                found.sources.push(Self {
                    name: name.to_owned(),
                    folder: path,
                });
            }
        }
        Ok(found)
    }
}

/// An adapter under a name.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// What the name stands for: the hash of its files.
    pub hash: AdapterHash,
    /// The folder that it was read from.
    pub path: PathBuf,
    /// The adapter, shared with every other name for the same files.
    pub packed: Arc<PackedAdapter>,
    /// What there is to know about it.
    pub info: AdapterInfo,
}

/// How far [`Catalog::load`] is: about to read one of the adapters.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// How many have been read.
    pub done: usize,
    /// How many there are.
    pub total: usize,
    /// The one that comes now.
    pub name: &'a str,
}

/// The base and its adapters by name. Immutable once it is shared.
#[derive(Clone, Debug)]
pub struct Catalog {
    base: String,
    /// In the order of loading.
    entries: Vec<Arc<Entry>>,
    by_name: HashMap<String, usize>,
}

impl Catalog {
    /// A catalogue of the base alone, under its name.
    pub fn new(base: &str) -> Self {
        Self {
            base: base.to_owned(),
            entries: Vec::new(),
            by_name: HashMap::new(),
        }
    }

    /// Reads and packs all of `sources` for `model`, which is the base under its own name. `progress` is called before each.
    ///
    /// # Errors
    /// At the first source that cannot be served, with its name. To go on without it, use [`Catalog::add`].
    pub fn load(
        model: &Model,
        sources: &[Source],
        dtype: AdapterDtype,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<Self, AdapterError> {
        let mut catalog = Self::new(model.name());
        let base = BaseShape::new(model.config()).named(model.name());
        for (done, source) in sources.iter().enumerate() {
            progress(Progress {
                done,
                total: sources.len(),
                name: &source.name,
            });
            catalog.add(source, &base, |weights| model.pack(weights, dtype))?;
        }
        Ok(catalog)
    }

    /// Reads an adapter, packs it and puts it under its name. Files that are there under another name already are not packed
    /// again.
    ///
    /// # Errors
    /// If its name or its files cannot be served; the catalogue is then as it was.
    pub fn add(
        &mut self,
        source: &Source,
        base: &BaseShape,
        pack: impl FnOnce(&AdapterWeights) -> Result<PackedAdapter, ModelError>,
    ) -> Result<Arc<Entry>, AdapterError> {
        let Source { name, folder } = source;
        self.check_name(name, folder)?;
        let named = |source: AdapterError| AdapterError::Named {
            name: name.clone(),
            source: Box::new(source),
        };
        let files = AdapterFiles::read(folder).map_err(named)?;
        let hash = files.hash;
        let (packed, info) = match self.entries.iter().find(|entry| entry.hash == hash) {
            Some(same) => (Arc::clone(&same.packed), same.info.clone()),
            None => {
                let adapter = files.parse(base).map_err(named)?;
                let unpackable = |source| {
                    named(AdapterError::Pack {
                        folder: folder.clone(),
                        source: Box::new(source),
                    })
                };
                (
                    Arc::new(pack(&adapter.weights).map_err(unpackable)?),
                    adapter.info,
                )
            }
        };
        let entry = Entry {
            name: name.clone(),
            hash,
            path: folder.clone(),
            packed,
            info,
        };
        self.insert(entry)
    }

    /// Puts an entry under its name.
    ///
    /// # Errors
    /// If the name cannot be served or is taken.
    pub fn insert(&mut self, entry: Entry) -> Result<Arc<Entry>, AdapterError> {
        self.check_name(&entry.name, &entry.path)?;
        let entry = Arc::new(entry);
        self.by_name.insert(entry.name.clone(), self.entries.len());
        self.entries.push(Arc::clone(&entry));
        Ok(entry)
    }

    /// The name of the base.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The adapter called `name`; the base is none.
    pub fn get(&self, name: &str) -> Option<Arc<Entry>> {
        self.by_name
            .get(name)
            .map(|&position| Arc::clone(&self.entries[position]))
    }

    /// All adapters, in the order they were added.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    fn check_name(&self, name: &str, folder: &Path) -> Result<(), AdapterError> {
        let bad = |reason| {
            Err(AdapterError::BadName {
                name: name.to_owned(),
                reason,
            })
        };
        if name.is_empty() {
            return bad("it is empty");
        }
        if name.len() > NAME_LIMIT {
            return bad("it is longer than 128 bytes");
        }
        if name.chars().any(char::is_control) {
            return bad("it holds control characters");
        }
        if name.trim() != name {
            return bad("it begins or ends with a space");
        }
        if name == self.base {
            return bad("the base is called so");
        }
        if RESERVED.contains(&name) {
            return bad("TGI's clients call the base so");
        }
        match self.get(name) {
            None => Ok(()),
            Some(first) => Err(AdapterError::DuplicateName {
                name: name.to_owned(),
                first: first.path.clone(),
                second: folder.to_owned(),
            }),
        }
    }
}
