//! What can go wrong with adapters, by file and by name.

use std::path::PathBuf;

use multigraft_model::ModelError;
use multigraft_peft::{Quoted, ReadError};
use multigraft_sources::SourceError;

/// Why an adapter could not be loaded, or not be put under a name.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Its files cannot be read, or say something that cannot be applied.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its source means nothing, or its files cannot be brought to this machine.
    #[error(transparent)]
    Source(SourceError),
    /// The base could not take it.
    #[error("`{}`: {source}", folder.display())]
    Pack {
        /// The adapter's folder.
        folder: PathBuf,
        /// Why.
        source: Box<ModelError>,
    },
    /// It does not do what it should.
    #[error("`{}`: {reason}", folder.display())]
    SelfTest {
        /// The adapter's folder.
        folder: PathBuf,
        /// What the test found.
        reason: String,
    },
    /// A name that cannot be served.
    #[error("{} cannot be the name of an adapter: {reason}", Quoted(name))]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Files that are no longer those that were registered.
    #[error(
        "the files in `{}` have changed since it was added (they were {known}, and are {found} now): add it again to serve \
         them as they are",
        folder.display()
    )]
    Changed {
        /// The adapter's folder.
        folder: PathBuf,
        /// The hash that was registered.
        known: String,
        /// That of what is there.
        found: String,
    },
    /// A name for which another adapter is just being loaded.
    #[error(
        "{} is just being loaded from `{at}`: wait until that has ended",
        Quoted(name)
    )]
    BeingLoaded {
        /// The name.
        name: String,
        /// From where.
        at: String,
    },
    /// As many adapters arrive as may at once.
    #[error("{most} adapters are being uploaded, and no more may be at once: come back when one has arrived")]
    TooManyUploads {
        /// How many may.
        most: usize,
    },
    /// A source that adapters may not come from.
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
        /// What was asked for.
        reference: String,
        /// The sources that are allowed.
        allowed: Vec<String>,
    },
    /// An upload that could not be kept.
    #[error("adapter {} cannot be uploaded: {reason}", Quoted(name))]
    NoUpload {
        /// Its name.
        name: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// One name for two sources.
    #[error("two adapters are called {}: `{first}` and `{second}`", Quoted(name))]
    DuplicateName {
        /// The name.
        name: String,
        /// The source that has it.
        first: String,
        /// The source that wants it too.
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
