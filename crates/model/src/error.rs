//! Why a base model could not be opened, or an adapter not made ready for it.

use std::path::PathBuf;

use multigraft_kernels::PackError;
use multigraft_weights::WeightsError;

/// Why a base model could not be opened, or an adapter not made ready for it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The files themselves are unreadable or malformed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file of the model folder could not be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Neither a GGUF file nor a model folder.
    #[error("{path} is no model: give a .gguf file, or a folder with config.json and *.safetensors", path = .0.display())]
    NotAModel(PathBuf),
    /// `config.json` does not parse.
    #[error("the model's config.json does not parse: {0}")]
    ConfigJson(#[from] serde_json::Error),
    /// The architecture is not supported.
    #[error("architecture `{0}` is not supported; supported are {list}", list = crate::config::architectures::SUPPORTED.join(", "))]
    Architecture(String),
    /// The configuration lacks a required field.
    #[error("the model's configuration lacks `{0}`")]
    Missing(&'static str),
    /// A field of the configuration has a value that is not supported.
    #[error("the model's configuration has {field} = {value}, which is not supported; {hint}")]
    Unsupported {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// Which values are supported, or why this one is not.
        hint: &'static str,
    },
    /// The files lack a tensor that the architecture needs.
    #[error("the model's files lack tensor `{0}`")]
    MissingTensor(String),
    /// A tensor's shape does not follow from the configuration.
    #[error("tensor `{name}` has shape {found:?} but the configuration says {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
    },
    /// A tensor's bytes could not be packed.
    #[error("tensor `{name}`: {source}")]
    Pack {
        /// The tensor.
        name: String,
        /// Why.
        source: PackError,
    },
    /// The base has no linear map of this name and of the adapter's shape.
    #[error("the adapter does not fit the base at {0}")]
    AdapterMismatch(String),
}
