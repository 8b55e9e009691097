//! Errors of tokenizers and chat templates.

use std::{io, path::PathBuf};

/// Why a tokenizer or a chat template could not be loaded or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A file of a model folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// A file of a model folder does not have the format that its name promises.
    #[error("{}: {reason}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A GGUF file lacks a metadata key that a tokenizer needs.
    #[error("the GGUF file has no `{key}`: {consequence}")]
    MissingMetadata {
        /// The key.
        key: &'static str,
        /// What cannot be done without it.
        consequence: &'static str,
    },

    /// A metadata value of a GGUF file is of the wrong type, out of range, or disagrees with
    /// another.
    #[error("GGUF metadata `{key}` {reason}")]
    InvalidMetadata {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },

    /// The GGUF file's kind of tokenizer is not supported.
    #[error("GGUF tokenizers of kind `{model}` are not supported (supported: {supported})")]
    UnsupportedModel {
        /// The value of `tokenizer.ggml.model`.
        model: String,
        /// The supported values.
        supported: &'static str,
    },

    /// The GGUF file names an unknown pre-tokenizer. Guessing another would give wrong tokens
    /// without an error.
    #[error("the GGUF pre-tokenizer `{name}` is not known (known: {known})")]
    UnknownPreTokenizer {
        /// The value of `tokenizer.ggml.pre`.
        name: String,
        /// The known values.
        known: String,
    },

    /// The tokenizer could not be assembled from its parts.
    #[error("the tokenizer cannot be built: {0}")]
    Build(String),

    /// The text could not be tokenised.
    #[error("the text cannot be tokenised: {0}")]
    Encode(String),

    /// The file of a chat template does not have the format that its name promises.
    #[error("{0}")]
    TemplateFile(String),

    /// The chat template is not valid Jinja.
    #[error("the chat template is not valid: {0}")]
    TemplateSyntax(String),

    /// The chat template refused the conversation, with `raise_exception`.
    #[error("{0}")]
    TemplateRefused(String),

    /// The chat template failed while it ran.
    #[error("the chat template failed: {0}")]
    TemplateFailed(String),

    /// The chat template exceeded its limit of work or output.
    #[error("the chat template went over its limit of {0}")]
    TemplateLimit(&'static str),

    /// A message does not have a form that chat templates accept.
    #[error("message {index}: {reason}")]
    InvalidMessage {
        /// The index of the message in the conversation, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}
