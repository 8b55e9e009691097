//! From a folder to a checked adapter.

use std::path::Path;

use multigraft_model::{AdapterWeights, Config};
use multigraft_weights::safetensors::Checkpoint;

use crate::base::BaseShape;
use crate::base_name;
use crate::config::{self, parse_config};
use crate::error::AdapterError;
use crate::files::{self, AdapterFiles};
use crate::info::{AdapterFile, AdapterInfo, Sizes};
use crate::tensors;

/// Reads the PEFT adapter in `folder` and checks it against the base that `config` describes.
///
/// # Errors
/// If files are missing, damaged or pickled, or if anything in them cannot be applied to the base; the error names the
/// file, and the field or tensor. Nothing is ever left out in silence.
pub fn read(folder: &Path, config: &Config) -> Result<AdapterFile, AdapterError> {
    read_for(folder, &BaseShape::new(config))
}

/// [`read`] for a base that was described before, perhaps with a name: then [`AdapterInfo::warnings`] says if the
/// adapter was trained on one of another name.
///
/// # Errors
/// As [`read`].
pub fn read_for(folder: &Path, base: &BaseShape) -> Result<AdapterFile, AdapterError> {
    AdapterFiles::read(folder)?.parse(base)
}

impl AdapterFiles {
    pub(crate) fn parse(self, base: &BaseShape) -> Result<AdapterFile, AdapterError> {
        let refused = |file: &str, reason| AdapterError::Refused {
            path: self.folder.join(file),
            reason,
        };
        let config = parse_config(&self.config).map_err(|reason| refused(files::CONFIG, reason))?;
        let bytes = self.config.len() + self.weights.len();
        let weights_path = self.folder.join(files::WEIGHTS);
        let checkpoint = Checkpoint::from_bytes(&weights_path.display().to_string(), self.weights)
            .map_err(|error| AdapterError::Weights(Box::new(error)))?;
        let mut changes = tensors::read(&checkpoint, &config, base).map_err(|reason| {
            let file = if reason.blames_config() {
                files::CONFIG
            } else {
                files::WEIGHTS
            };
            refused(file, reason)
        })?;
        if !config.invocation.is_empty() && changes.embedding.is_some() {
            return Err(refused(files::CONFIG, config::INVOKED_ALONE));
        }
        changes
            .warnings
            .extend(base_name::verdict(config.base_model.as_deref(), base.name()));
        let sizes = Sizes {
            tensors: checkpoint.tensors().count(),
            parameters: checkpoint.tensors().map(|tensor| tensor.len()).sum(),
            bytes,
        };
        let info = AdapterInfo::new(self.hash, &config, &changes, &sizes);
        let weights = AdapterWeights {
            hash: self.hash,
            linears: changes.linears,
            embedding: changes.embedding,
            invocation: config.invocation.clone(),
        };
        Ok(AdapterFile { weights, info })
    }
}
