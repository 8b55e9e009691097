//! The models that answer: facts about the base, and which model answers a request.

use std::{fmt, path::PathBuf};

use axum::http::{HeaderMap, HeaderValue};

use super::headers::{ADAPTER_HEADER, HASH_HEADER, SCALE_HEADER};

/// Facts about the base model that answers report.
#[derive(Clone, Debug)]
pub struct BaseInfo {
    /// Its file or folder.
    pub path: PathBuf,
    /// Architecture, such as `llama`.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Longest sequence, prompt and answer together, in tokens.
    pub context: usize,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// Width of hidden states: the length of embeddings.
    pub hidden: usize,
}

/// The model that answers a request: the base or an adapter as it was when the request came in.
/// Replacing or removing the name afterwards does not change it.
#[derive(Clone)]
pub(crate) struct ResolvedModel {
    /// Its name.
    pub(crate) name: String,
    /// The adapter's content hash in hexadecimal, or `base`.
    pub(crate) hash: String,
    /// What the adapter's updates are multiplied by; the base has none.
    pub(crate) scale: Option<f32>,
}

impl fmt::Debug for ResolvedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.hash)
    }
}

impl ResolvedModel {
    /// OpenAI's `system_fingerprint`: what computed the answer.
    pub(crate) fn fingerprint(&self) -> String {
        match self.scale {
            None | Some(1.0) => format!("multigraft-{}", self.hash),
            Some(scale) => format!("multigraft-{}@{scale}", self.hash),
        }
    }

    /// Says in the headers which model answered.
    pub(crate) fn label(&self, headers: &mut HeaderMap) {
        // Names may be anything that a folder can be called; what a header cannot hold is left to
        // the hash.
        if let Ok(name) = HeaderValue::from_bytes(self.name.as_bytes()) {
            headers.insert(ADAPTER_HEADER, name);
        }
        if let Ok(hash) = HeaderValue::from_str(&self.hash) {
            headers.insert(HASH_HEADER, hash);
        }
        if let Some(scale) = self.scale
            && let Ok(scale) = HeaderValue::from_str(&scale.to_string())
        {
            headers.insert(SCALE_HEADER, scale);
        }
    }
}
