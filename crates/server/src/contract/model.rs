//! The base model and the model that answers a request.

use std::{fmt, path::PathBuf};

use axum::http::{HeaderMap, HeaderValue};

use super::headers::{ADAPTER_HEADER, HASH_HEADER, SCALE_HEADER};

/// Facts about the base model that `/info` and `/v1/models` report.
#[derive(Clone, Debug)]
pub struct BaseInfo {
    /// File or folder of the weights.
    pub path: PathBuf,
    /// Architecture, such as `llama`.
    pub architecture: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Longest sequence (prompt and answer), in tokens.
    pub context: usize,
    /// Number of tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the hidden states, which is the length of an embedding.
    pub hidden: usize,
}

/// The model that answers a request: the base, or one version of an adapter. The version is fixed
/// when the request arrives; replacing the adapter later does not change it.
#[derive(Clone)]
pub(crate) struct ResolvedModel {
    /// The name of the base or of the adapter.
    pub(crate) name: String,
    /// Content hash of the adapter in hexadecimal, or `base`.
    pub(crate) hash: String,
    /// Scale of the adapter's updates. `None` for the base.
    pub(crate) scale: Option<f32>,
}

impl fmt::Debug for ResolvedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.hash)
    }
}

impl ResolvedModel {
    /// OpenAI's `system_fingerprint`: the hash and the scale of the model that computed the answer.
    pub(crate) fn fingerprint(&self) -> String {
        match self.scale {
            None | Some(1.0) => format!("multigraft-{}", self.hash),
            Some(scale) => format!("multigraft-{}@{scale}", self.hash),
        }
    }

    /// Writes the name, hash and scale of the model into response headers.
    pub(crate) fn label(&self, headers: &mut HeaderMap) {
        // A name may be any folder name. If a header cannot hold the name, the hash identifies the
        // model.
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
