//! Errors of adding and loading adapters.

use std::path::PathBuf;

use multigraft_model::ModelError;
use multigraft_peft::{Quoted, ReadError};
use multigraft_sources::SourceError;

/// Why an adapter was not added or not loaded.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Its files cannot be read, or cannot be applied to the base.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its source is not valid, or its files cannot be downloaded.
    #[error(transparent)]
    Source(SourceError),
    /// The base cannot make it ready.
    #[error("`{}`: {source}", folder.display())]
    Pack {
        /// The adapter's folder.
        folder: PathBuf,
        /// The base's error.
        source: Box<ModelError>,
    },
    /// It failed the self test.
    #[error("`{}`: {reason}", folder.display())]
    SelfTest {
        /// The adapter's folder.
        folder: PathBuf,
        /// The result of the test.
        reason: String,
    },
    /// The name cannot be served.
    #[error("{} cannot be the name of an adapter: {reason}", Quoted(name))]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The files are not those that were registered.
    #[error(
        "the files in `{}` have changed since it was added (they were {known}, and are {found} now): add it again to serve \
         them as they are",
        folder.display()
    )]
    Changed {
        /// The adapter's folder.
        folder: PathBuf,
        /// The hash of the registered files.
        known: String,
        /// The hash of the files that are there now.
        found: String,
    },
    /// Another adapter is being loaded under the same name.
    #[error(
        "{} is just being loaded from `{at}`: try again when that load has ended",
        Quoted(name)
    )]
    BeingLoaded {
        /// The name.
        name: String,
        /// The source of the other adapter.
        at: String,
    },
    /// The limit of concurrent uploads is reached.
    #[error("{most} adapters are being uploaded, which is the limit: try again when one has finished")]
    TooManyUploads {
        /// The limit.
        most: usize,
    },
    /// The source is not allowed.
    #[error(
        "adapters may not be added from {}: {}",
        Quoted(reference),
        match allowed.as_slice() {
            [] => "this server allows no source; name some with --allow-source".to_owned(),
            [one] => format!("this server allows `{one}` and what is in it (--allow-source)"),
            [first, others @ ..] => format!(
                "this server allows `{first}` and {} other sources (--allow-source)", others.len()
            ),
        }
    )]
    NotAllowed {
        /// The reference as it was written.
        reference: String,
        /// The sources that are allowed.
        allowed: Vec<String>,
    },
    /// The upload would not be stored.
    #[error("adapter {} cannot be uploaded: {reason}", Quoted(name))]
    NoUpload {
        /// Its name.
        name: String,
        /// Why not, and the remedy.
        reason: &'static str,
    },
    /// The name is in use.
    #[error(
        "adapter {} exists already, from `{first}`: replace or remove it to use `{second}`",
        Quoted(name)
    )]
    DuplicateName {
        /// The name.
        name: String,
        /// The source of the adapter that has the name.
        first: String,
        /// The source of the new adapter.
        second: String,
    },
}

impl From<SourceError> for AdapterError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::NotAllowed { reference, allowed } => Self::NotAllowed { reference, allowed },
            error => Self::Source(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_not_allowed_is_told_with_the_setting_that_allows_one() {
        let error = SourceError::NotAllowed {
            reference: "/".to_owned(),
            allowed: Vec::new(),
        };
        let error = AdapterError::from(error).to_string();
        assert!(error.contains("--allow-source"), "{error}");
    }
}
