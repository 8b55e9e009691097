//! Files of the Files API.

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The requests of a batch.
    Batch,
    /// The results of a batch.
    BatchOutput,
}

impl Purpose {
    /// The purpose in OpenAI's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
        }
    }

    /// The purpose that OpenAI's API writes as `text`.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Batch, Self::BatchOutput]
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
    }
}

/// A file's row. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// The id: letters, digits, `-` and `_`.
    pub id: String,
    /// The tenant that owns the file; `None` on a server without keys.
    pub tenant: Option<String>,
    /// The file name that the client gave.
    pub name: String,
    /// What the file is for.
    pub purpose: Purpose,
    /// The size in bytes.
    pub bytes: u64,
    /// When the file was created.
    pub created: u64,
    /// When the file is deleted; `None` is never.
    pub expires: Option<u64>,
}

/// How much a tenant may store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// The number of files.
    pub files: u64,
}
