//! Reads and hashes an adapter's files (PEFT's two, or one GGUF file, and a chat template if there
//! is one) before anything in them is parsed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use multigraft_model::{AdapterHash, Throttle};

use crate::config::CONFIG_LIMIT;
use crate::disk::{PIECE, exists, read_throttled};
use crate::error::ReadError;
use crate::template::Template;

/// The file with an adapter's settings.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The model card, which may name the base.
pub const CARD_FILE: &str = "README.md";
/// The file with an adapter's tensors.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Pickled tensors, which are never read.
const PICKLED: [&str; 3] = ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth"];
/// The largest file of tensors that is read, in bytes. An adapter that replaces the embedding and
/// the lm_head of a model with 260,000 tokens and 8,192 features has 8 GB.
pub const WEIGHTS_LIMIT: u64 = 16 << 30;
/// Prefix of the hashed data, so that a hash never equals one made for another purpose.
const HASH_DOMAIN: &[u8] = b"multigraft adapter 1\0";

/// The name under which a GGUF adapter is hashed and stored, whatever its file is called.
const GGUF: &str = "adapter.gguf";
/// Extension of llama.cpp's files.
const GGUF_END: &str = "gguf";

/// The bytes of an adapter's files. Each file is read once, so the hash is that of the parsed bytes
/// even if the files change meanwhile.
pub struct AdapterFiles {
    /// The adapter's folder or file.
    pub folder: PathBuf,
    pub(crate) contents: Contents,
    pub(crate) template: Option<Template>,
    /// The content hash of all files.
    pub hash: AdapterHash,
}

/// The bytes, by format.
pub(crate) enum Contents {
    /// `adapter_config.json` and `adapter_model.safetensors`.
    Peft { config: Vec<u8>, weights: Vec<u8> },
    /// A GGUF file, and its path.
    Gguf { path: PathBuf, bytes: Vec<u8> },
}

/// The files, by the names under which they are hashed and stored.
fn named<'a>(contents: &'a Contents, template: Option<&'a Template>) -> Vec<(&'static str, &'a [u8])> {
    let mut files: Vec<(_, &[u8])> = match contents {
        Contents::Peft { config, weights } => vec![(CONFIG_FILE, config), (WEIGHTS_FILE, weights)],
        Contents::Gguf { bytes, .. } => vec![(GGUF, bytes)],
    };
    files.extend(template.map(|template| (template.file, template.bytes.as_slice())));
    files
}

impl fmt::Debug for AdapterFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdapterFiles")
            .field("folder", &self.folder)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

impl AdapterFiles {
    /// Reads the files of the adapter at `path`: a folder as PEFT saves it, a folder with one
    /// `.gguf` file, or a `.gguf` file.
    ///
    /// # Errors
    /// If there is no adapter, or if a file is missing, pickled, too large or not a regular file.
    pub fn read(path: &Path, throttle: &Throttle) -> Result<Self, ReadError> {
        let contents = match gguf_file(path)? {
            Some(path) => Contents::Gguf {
                bytes: read_throttled(&path, WEIGHTS_LIMIT, throttle)?,
                path,
            },
            None => peft(path, throttle)?,
        };
        // A file that was named by itself has no chat template beside it.
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

    /// The files, by the names under which they are hashed and stored.
    pub fn files(&self) -> Vec<(&'static str, &[u8])> {
        named(&self.contents, self.template.as_ref())
    }
}

/// Reads PEFT's two files.
fn peft(folder: &Path, throttle: &Throttle) -> Result<Contents, ReadError> {
    let config_path = folder.join(CONFIG_FILE);
    if !exists(&config_path)? {
        return Err(ReadError::NoConfig {
            folder: folder.to_owned(),
            hint: hint(folder),
        });
    }
    let weights_path = folder.join(WEIGHTS_FILE);
    if !exists(&weights_path)? {
        for name in PICKLED {
            let path = folder.join(name);
            if exists(&path)? {
                return Err(ReadError::Pickled { path });
            }
        }
        return Err(ReadError::NoWeights {
            folder: folder.to_owned(),
        });
    }
    Ok(Contents::Peft {
        config: read_throttled(&config_path, CONFIG_LIMIT as u64, throttle)?,
        weights: read_throttled(&weights_path, WEIGHTS_LIMIT, throttle)?,
    })
}

/// The GGUF file that `path` means: the file itself, or the only one in a folder without PEFT's
/// config. `None` if there is none.
///
/// # Errors
/// If the folder cannot be read or holds several.
pub fn gguf_file(path: &Path) -> Result<Option<PathBuf>, ReadError> {
    if path.is_file() {
        return Ok(Some(path.to_owned()));
    }
    if !path.is_dir() || exists(&path.join(CONFIG_FILE))? {
        return Ok(None);
    }
    let mut found = gguf_files(path)?.into_iter();
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err(ReadError::SeveralGgufs {
            folder: path.to_owned(),
            first,
            second,
        }),
        (one, _) => Ok(one),
    }
}

/// The `.gguf` files in a folder, sorted.
///
/// # Errors
/// If the folder cannot be read.
pub fn gguf_files(folder: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let fail = |source| ReadError::Io {
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

/// SHA-256 of the domain followed by, for each file: the length of its name (64 bits,
/// little-endian), its name, the length of its contents (likewise), its contents.
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

/// PEFT saves adapters that are not called `default` in sub-folders. If there is one, the message
/// names it.
fn hint(folder: &Path) -> String {
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = below
        .map(|entry| entry.path())
        .filter(|path| path.join(CONFIG_FILE).is_file())
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
