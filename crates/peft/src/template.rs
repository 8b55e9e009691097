//! The chat template in an adapter's folder.

use std::path::Path;
use std::sync::Arc;

use multigraft_text::{ChatTemplate, TEMPLATE_FILES};

use crate::disk::{exists, read};
use crate::error::ReadError;

/// The largest file that is searched for a template, in bytes. A `tokenizer_config.json` lists
/// added tokens and has a megabyte for some models.
pub const TEMPLATE_LIMIT: u64 = 16 << 20;

/// A chat template and its file.
#[derive(Clone, Debug)]
pub struct Template {
    /// The file's name, one of [`TEMPLATE_FILES`].
    pub file: &'static str,
    /// The file's contents.
    pub(crate) bytes: Vec<u8>,
    /// The compiled template.
    pub compiled: Arc<ChatTemplate>,
}

impl Template {
    /// Compiles the template in `folder`; `None` if there is none. A template that cannot be used
    /// is an error, because the adapter would not answer as it was trained to without it.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>, ReadError> {
        for file in TEMPLATE_FILES {
            let path = folder.join(file);
            if !exists(&path)? {
                continue;
            }
            let bytes = read(&path, TEMPLATE_LIMIT)?;
            let compiled = ChatTemplate::from_file(file, &bytes);
            if let Some(compiled) = compiled.map_err(|reason| ReadError::Template { path, reason })? {
                let compiled = Arc::new(compiled);
                return Ok(Some(Self {
                    file,
                    bytes,
                    compiled,
                }));
            }
        }
        Ok(None)
    }
}
