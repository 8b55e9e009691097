//! An adapter's files on disk (PEFT's two, or one of llama.cpp, and a chat template if there is
//! one), read whole and hashed before anything believes them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use multigraft_model::{AdapterHash, Throttle};

use crate::config::CONFIG_LIMIT;
use crate::error::AdapterError;
use crate::template::Template;

/// What the settings are in.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// The model card, which may name the base.
pub(crate) const CARD: &str = "README.md";
/// What the tensors are in.
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";
/// The same, pickled: never read.
const PICKLED: [&str; 3] = ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth"];
/// The largest file of tensors that is read. An adapter that replaces embedding and lm_head of a
/// model with 260,000 tokens and 8,192 features has 8 GB.
pub(crate) const WEIGHTS_LIMIT: u64 = 16 << 30;
/// Bytes that are read or hashed between two pauses.
const PIECE: usize = 256 << 10;
/// What a hash begins with, so that it never equals one made for another purpose.
const HASH_DOMAIN: &[u8] = b"multigraft adapter 1\0";

/// An adapter in llama.cpp's format is hashed and kept under this name, whatever its file is
/// called.
const GGUF: &str = "adapter.gguf";
/// How such files end.
const GGUF_END: &str = "gguf";

/// The bytes of an adapter. They are read once: what is hashed is what is parsed, even if the files
/// change meanwhile.
pub(crate) struct AdapterFiles {
    /// Its folder, or its file.
    pub(crate) folder: PathBuf,
    pub(crate) contents: Contents,
    pub(crate) template: Option<Template>,
    pub(crate) hash: AdapterHash,
}

/// What was read, by format.
pub(crate) enum Contents {
    /// `adapter_config.json` and `adapter_model.safetensors`.
    Peft { config: Vec<u8>, weights: Vec<u8> },
    /// The one file of llama.cpp's format, and where it was.
    Gguf { path: PathBuf, bytes: Vec<u8> },
}

/// The files by the names that they are hashed and kept under.
fn named<'a>(contents: &'a Contents, template: Option<&'a Template>) -> Vec<(&'static str, &'a [u8])> {
    let mut files: Vec<(_, &[u8])> = match contents {
        Contents::Peft { config, weights } => vec![(CONFIG, config), (WEIGHTS, weights)],
        Contents::Gguf { bytes, .. } => vec![(GGUF, bytes)],
    };
    files.extend(template.map(|template| (template.file, template.bytes.as_slice())));
    files
}

impl AdapterFiles {
    /// Reads the files of the adapter at `path`: PEFT's folder, a folder with one `.gguf` file, or
    /// such a file.
    pub(crate) fn read(path: &Path, throttle: &Throttle) -> Result<Self, AdapterError> {
        let contents = match gguf(path)? {
            Some(path) => Contents::Gguf {
                bytes: read_throttled(&path, WEIGHTS_LIMIT, throttle)?,
                path,
            },
            None => peft(path, throttle)?,
        };
        // Beside a file that was named by itself nothing belongs to it.
        let template = match path.is_dir() {
            true => Template::find(path)?,
            false => None,
        };
        Ok(Self {
            folder: path.to_owned(),
            hash: hash(&named(&contents, template.as_ref()), throttle),
            contents,
            template,
        })
    }

    /// The files by the names that they are hashed and kept under.
    pub(crate) fn files(&self) -> Vec<(&'static str, &[u8])> {
        named(&self.contents, self.template.as_ref())
    }

    /// Whether they are those of `known`.
    pub(crate) fn check(&self, known: AdapterHash) -> Result<(), AdapterError> {
        match self.hash == known {
            true => Ok(()),
            false => Err(AdapterError::Changed {
                folder: self.folder.clone(),
                known: known.to_string(),
                found: self.hash.to_string(),
            }),
        }
    }
}

/// Reads PEFT's two files.
fn peft(folder: &Path, throttle: &Throttle) -> Result<Contents, AdapterError> {
    let config_path = folder.join(CONFIG);
    if !exists(&config_path)? {
        return Err(AdapterError::NoConfig {
            folder: folder.to_owned(),
            hint: hint(folder),
        });
    }
    let weights_path = folder.join(WEIGHTS);
    if !exists(&weights_path)? {
        for name in PICKLED {
            let path = folder.join(name);
            if exists(&path)? {
                return Err(AdapterError::Pickled { path });
            }
        }
        return Err(AdapterError::NoWeights {
            folder: folder.to_owned(),
        });
    }
    Ok(Contents::Peft {
        config: read_throttled(&config_path, CONFIG_LIMIT as u64, throttle)?,
        weights: read_throttled(&weights_path, WEIGHTS_LIMIT, throttle)?,
    })
}

/// The file in llama.cpp's format that `path` means: itself, or the only one in a folder without
/// PEFT's config; `None` if there is none.
///
/// # Errors
/// If the folder cannot be read or holds several.
pub fn gguf(path: &Path) -> Result<Option<PathBuf>, AdapterError> {
    if path.is_file() {
        return Ok(Some(path.to_owned()));
    }
    if !path.is_dir() || exists(&path.join(CONFIG))? {
        return Ok(None);
    }
    let mut found = ggufs(path)?.into_iter();
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(AdapterError::SeveralGgufs {
            folder: path.to_owned(),
            first,
            second,
        }),
        (one, _) => Ok(one),
    }
}

/// The `.gguf` files in a folder, by name.
pub(crate) fn ggufs(folder: &Path) -> Result<Vec<PathBuf>, AdapterError> {
    let fail = |source| AdapterError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|end| end == GGUF_END) && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// SHA-256 of the domain, then for each file the length of its name (64 bits, little-endian), its
/// name, the length of its contents (the same), its contents.
fn hash(files: &[(&str, &[u8])], throttle: &Throttle) -> AdapterHash {
    let mut hasher = Sha256::new();
    hasher.update(HASH_DOMAIN);
    for (name, contents) in files {
        for part in [name.as_bytes(), contents] {
            hasher.update((part.len() as u64).to_le_bytes());
            for piece in part.chunks(PIECE) {
                hasher.update(piece);
                throttle.pause();
            }
        }
    }
    AdapterHash(hasher.finalize().into())
}

/// Whether there is anything at `path`; a link to nothing is nothing.
pub(crate) fn exists(path: &Path) -> Result<bool, AdapterError> {
    path.try_exists().map_err(|source| AdapterError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, AdapterError> {
    read_throttled(path, limit, &Throttle::NONE)
}

fn read_throttled(path: &Path, limit: u64, throttle: &Throttle) -> Result<Vec<u8>, AdapterError> {
    let fail = |source| AdapterError::Read {
        path: path.to_owned(),
        source,
    };
    // Asked before opening: to open a named pipe would wait for its writer.
    let metadata = fs::metadata(path).map_err(fail)?;
    if !metadata.is_file() {
        return Err(AdapterError::NotAFile {
            path: path.to_owned(),
        });
    }
    let size = metadata.len();
    if size > limit {
        return Err(AdapterError::TooLarge {
            path: path.to_owned(),
            size,
            limit,
        });
    }
    let mut bytes = Vec::new();
    let capacity = usize::try_from(size).unwrap_or(usize::MAX);
    bytes
        .try_reserve_exact(capacity)
        .map_err(|_| fail(std::io::ErrorKind::OutOfMemory.into()))?;
    let mut file = File::open(path).map_err(fail)?;
    loop {
        // A file that grew meanwhile is read no further than the limit.
        let piece = (limit - bytes.len() as u64).min(PIECE as u64);
        let read = file.by_ref().take(piece).read_to_end(&mut bytes).map_err(fail)?;
        if read == 0 {
            return Ok(bytes);
        }
        throttle.pause();
    }
}

/// PEFT puts adapters that are not called `default` into sub-folders, and people name the folder
/// above.
fn hint(folder: &Path) -> String {
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = below
        .map(|entry| entry.path())
        .filter(|path| path.join(CONFIG).is_file())
        .collect();
    names.sort();
    names
        .first()
        .map_or_else(String::new, |path| format!(", but `{}` does", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(files: &[(&str, &[u8])]) -> String {
        hash(files, &Throttle::NONE).to_string()
    }

    #[test]
    fn the_hash_is_as_documented() {
        // python: sha256(b"multigraft adapter 1\0" + pack("<Q", 1) + b"a" + pack("<Q", 2) +
        // b"xy").hexdigest()
        assert_eq!(
            hex(&[("a", b"xy")]),
            "9bc3b6bf972f947bc0be92022f77bd97d250a173fbf9020bbc3463cad4be25f1"
        );
    }

    #[test]
    fn bytes_moved_between_files_or_names_change_the_hash() {
        let hashes = [
            hex(&[("a", b"xy"), ("b", b"z")]),
            hex(&[("a", b"x"), ("b", b"yz")]),
            hex(&[("ax", b"y"), ("b", b"z")]),
            hex(&[("b", b"z"), ("a", b"xy")]),
            hex(&[("a", b"xy")]),
        ];
        for (i, one) in hashes.iter().enumerate() {
            assert!(!hashes[i + 1..].contains(one), "{i}");
        }
    }
}
