//! Turns an adapter's files into a checked adapter.

use std::path::Path;

use multigraft_model::{AdapterHash, AdapterWeights, Config, Throttle};
use multigraft_weights::gguf::Gguf;
use multigraft_weights::safetensors::Checkpoint;

use crate::base::BaseShape;
use crate::base_name;
use crate::config::{INVOKED_ALONE, PeftConfig, parse_config};
use crate::derived::Derived;
use crate::error::ReadError;
use crate::files::{AdapterFiles, CONFIG_FILE, Contents, WEIGHTS_FILE, gguf_file};
use crate::gguf;
use crate::info::{AdapterFile, AdapterInfo, Sizes};
use crate::refusal::Refusal;
use crate::tensors::{self, Changes, NamedTensor};
use crate::variants;

/// Reads the adapter at `path` and checks it against the base that `config` describes. `path` is a
/// folder as PEFT saves it, a folder with one `.gguf` file as llama.cpp's converter writes it, or
/// such a file.
///
/// # Errors
/// If files are missing, damaged or pickled, or if anything in them cannot be applied to the base.
/// The error names the file, and the field or tensor. Nothing is ignored silently.
pub fn read(path: &Path, config: &Config) -> Result<AdapterFile, ReadError> {
    read_for(path, &BaseShape::new(config))
}

/// As [`read`], for a [`BaseShape`]. If the base has a name, [`AdapterInfo::warnings`] tells
/// whether the adapter was trained on a base of another name.
///
/// # Errors
/// As [`read`].
pub fn read_for(path: &Path, base: &BaseShape) -> Result<AdapterFile, ReadError> {
    AdapterFiles::read(path, &Throttle::NONE)?.parse(base, &Throttle::NONE)
}

/// Whether `path` is an adapter's folder or file rather than a model's: whether [`read`] would try
/// to read it.
pub fn is_adapter(path: &Path) -> bool {
    path.join(CONFIG_FILE).is_file()
        || gguf_file(path).is_ok_and(|file| {
            file.is_some_and(|file| Gguf::open(&file).is_ok_and(|gguf| gguf::is_adapter(&gguf)))
        })
}

impl AdapterFiles {
    /// Parses the files and checks them against `base`, with pauses by `throttle`.
    ///
    /// # Errors
    /// If a file is damaged, or if anything in it cannot be applied to the base.
    pub fn parse(self, base: &BaseShape, throttle: &Throttle) -> Result<AdapterFile, ReadError> {
        let mut file = match self.contents {
            Contents::Peft { config, weights } => {
                peft(&self.folder, self.hash, (&config, weights), base, throttle)?
            }
            Contents::Gguf { path, bytes } => llama_cpp(&path, self.hash, bytes, base, throttle)?,
        };
        file.info.chat_template = self.template.as_ref().map(|template| template.file.to_owned());
        file.template = self.template;
        Ok(file)
    }
}

fn peft(
    folder: &Path,
    hash: AdapterHash,
    (config_bytes, weights): (&[u8], Vec<u8>),
    base: &BaseShape,
    throttle: &Throttle,
) -> Result<AdapterFile, ReadError> {
    let refused = |reason: Refusal| ReadError::Refused {
        path: folder.join(match reason.blames_config() {
            true => CONFIG_FILE,
            false => WEIGHTS_FILE,
        }),
        reason,
    };
    let mut config = parse_config(config_bytes).map_err(|reason| ReadError::Refused {
        path: folder.join(CONFIG_FILE),
        reason,
    })?;
    let bytes = config_bytes.len() + weights.len();
    let weights_path = folder.join(WEIGHTS_FILE);
    let checkpoint = Checkpoint::from_bytes(&weights_path.display().to_string(), weights)
        .map_err(|error| ReadError::Weights(Box::new(error)))?;
    if let Some((tensor, dtype, _)) = checkpoint.others().next() {
        return Err(refused(Refusal::Dtype {
            tensor: tensor.to_owned(),
            dtype: dtype.to_owned(),
        }));
    }
    let derived = variants::updates(&checkpoint, &mut config, base, throttle).map_err(refused)?;
    let named = || derived.iter().map(Derived::named);
    let changes = tensors::read(named(), &config, base, throttle).map_err(refused)?;
    if !config.invocation.is_empty() && changes.embedding.is_some() {
        return Err(refused(INVOKED_ALONE));
    }
    Ok(adapter(hash, &config, changes, named(), bytes, base))
}

fn llama_cpp(
    path: &Path,
    hash: AdapterHash,
    bytes: Vec<u8>,
    base: &BaseShape,
    throttle: &Throttle,
) -> Result<AdapterFile, ReadError> {
    let size = bytes.len();
    let file = Gguf::from_bytes(&path.display().to_string(), bytes)
        .map_err(|error| ReadError::Weights(Box::new(error)))?;
    let refused = |reason| ReadError::Refused {
        path: path.to_owned(),
        reason,
    };
    let (config, derived) = gguf::updates(&file, base).map_err(refused)?;
    let named = || derived.iter().map(Derived::named);
    let changes = tensors::read(named(), &config, base, throttle).map_err(refused)?;
    Ok(adapter(hash, &config, changes, named(), size, base))
}

fn adapter<'a>(
    hash: AdapterHash,
    config: &PeftConfig,
    mut changes: Changes,
    tensors: impl Iterator<Item = NamedTensor<'a>>,
    bytes: usize,
    base: &BaseShape,
) -> AdapterFile {
    changes
        .warnings
        .extend(base_name::verdict(config.base_model.as_deref(), base.name()));
    let mut sizes = Sizes {
        tensors: 0,
        parameters: 0,
        bytes,
    };
    for NamedTensor { tensor, .. } in tensors {
        sizes.tensors += 1;
        sizes.parameters += tensor.len();
    }
    let info = AdapterInfo::new(hash, config, &changes, &sizes);
    let weights = AdapterWeights {
        hash,
        linears: changes.linears,
        embedding: changes.embedding,
        invocation: config.invocation.clone(),
    };
    AdapterFile {
        weights,
        info,
        template: None,
    }
}
