//! A base model's files in either format: tensors are looked up by the names that transformers
//! gives them, which are translated for a GGUF file.

use std::path::Path;

use multigraft_weights::Tensor;
use multigraft_weights::gguf::Gguf;
use multigraft_weights::safetensors::Checkpoint;

use crate::config::Config;
use crate::error::ModelError;

/// Open files of a base model.
#[derive(Debug)]
pub enum ModelFiles {
    /// One GGUF file.
    Gguf(Gguf),
    /// A folder with `config.json` and safetensors.
    Folder {
        /// The tensors.
        checkpoint: Checkpoint,
        /// The text of `config.json`.
        config: String,
    },
}

impl ModelFiles {
    /// Opens a `.gguf` file or a model folder.
    ///
    /// # Errors
    /// If it is neither, or unreadable.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_file() {
            return Ok(Self::Gguf(Gguf::open(path)?));
        }
        let config = path.join("config.json");
        if !config.is_file() {
            return Err(ModelError::NotAModel(path.to_owned()));
        }
        let text =
            std::fs::read_to_string(&config).map_err(|source| ModelError::Io { path: config, source })?;
        Ok(Self::Folder {
            checkpoint: Checkpoint::open_folder(path)?,
            config: text,
        })
    }

    /// The configuration of the decoder that the files describe.
    ///
    /// # Errors
    /// As [`Config::from_hf_json`].
    pub fn config(&self) -> Result<Config, ModelError> {
        match self {
            Self::Gguf(gguf) => Config::from_gguf(gguf),
            Self::Folder { config, .. } => {
                let mut config = Config::from_hf_json(config)?;
                // A checkpoint without a head uses its embedding, whatever the configuration leaves
                // out.
                config.tied_embeddings |= self.find("lm_head.weight").is_none();
                Ok(config)
            }
        }
    }

    /// The model's name in its files, if they have one.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Gguf(gguf) => gguf.metadata().str("general.name").map(str::to_owned),
            Self::Folder { config, .. } => {
                let config: serde_json::Value = serde_json::from_str(config).ok()?;
                config
                    .get("_name_or_path")?
                    .as_str()
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
            }
        }
    }

    /// All tensors, in the files' order.
    pub fn tensors(&self) -> Box<dyn Iterator<Item = Tensor<'_>> + '_> {
        match self {
            Self::Gguf(gguf) => Box::new(gguf.tensors()),
            Self::Folder { checkpoint, .. } => Box::new(checkpoint.tensors()),
        }
    }

    /// A tensor by its name in a Hugging Face checkpoint, with or without the prefixes of
    /// multimodal wrappers.
    fn find(&self, name: &str) -> Option<Tensor<'_>> {
        match self {
            Self::Gguf(gguf) => gguf.tensor(name),
            Self::Folder { checkpoint, .. } => checkpoint.tensor(name).or_else(|| {
                let wrapped = ["language_model.", "model.language_model."];
                let inner = name.strip_prefix("model.").unwrap_or(name);
                checkpoint
                    .tensor(&format!("{}{name}", wrapped[0]))
                    .or_else(|| checkpoint.tensor(&format!("{}{inner}", wrapped[1])))
            }),
        }
    }

    /// The tensor that transformers calls `name`, of a model that is described by `config`. Rows of
    /// queries and keys are in the file's own order.
    pub fn tensor(&self, name: &str, config: &Config) -> Option<Tensor<'_>> {
        match self {
            Self::Gguf(_) => self.find(&config.gguf_name(name)?),
            Self::Folder { .. } => self.find(name),
        }
    }

    /// As [`ModelFiles::tensor`], checked to have a shape.
    ///
    /// # Errors
    /// If there is no such tensor, or it has another shape.
    pub fn require(&self, name: &str, shape: &[usize], config: &Config) -> Result<Tensor<'_>, ModelError> {
        let tensor = self.tensor(name, config).ok_or_else(|| {
            let gguf_name = matches!(self, Self::Gguf(_))
                .then(|| config.gguf_name(name))
                .flatten();
            ModelError::MissingTensor(gguf_name.unwrap_or_else(|| name.to_owned()))
        })?;
        if tensor.shape != shape {
            return Err(ModelError::Shape {
                name: tensor.name.to_owned(),
                found: tensor.shape.to_vec(),
                expected: shape.to_vec(),
            });
        }
        Ok(tensor)
    }

    /// Where row `row` of a query or key projection lies in the file.
    pub fn rotary_row(&self, row: usize, config: &Config) -> usize {
        match self {
            Self::Gguf(_) => config.gguf_rotary_row(row),
            Self::Folder { .. } => row,
        }
    }
}
