//! The chat template in an adapter's folder.

use std::path::Path;
use std::sync::Arc;

use multigraft_text::{ChatTemplate, TEMPLATE_FILES};

use crate::disk::{exists, read};
use crate::error::ReadError;

/// The largest file that is searched for a template. A `tokenizer_config.json` lists added tokens,
/// and has a megabyte for some models.
pub const TEMPLATE_LIMIT: u64 = 16 << 20;

/// A chat template, and the file that it is in.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its name, one of [`TEMPLATE_FILES`].
    pub file: &'static str,
    /// All of the file.
    pub(crate) bytes: Vec<u8>,
    /// What is run.
    pub compiled: Arc<ChatTemplate>,
}

impl Template {
    /// The template in `folder`, compiled; `None` if there is none. An adapter without its template
    /// would answer as nobody trained it to, so one that cannot be used is an error.
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
