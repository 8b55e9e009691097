//! Files as they are known.

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The requests of a batch.
    Batch,
    /// What became of them.
    BatchOutput,
}

impl Purpose {
    /// As OpenAI spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
        }
    }

    /// What is spelt so.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Batch, Self::BatchOutput]
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
    }
}

/// A file. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// By which it is asked for; letters, digits, `-` and `_`.
    pub id: String,
    /// Whose it is; `None` where there were no keys.
    pub tenant: Option<String>,
    /// What its sender called it.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// How long it is.
    pub bytes: u64,
    /// When it came.
    pub created: u64,
    /// When it goes.
    pub expires: Option<u64>,
}

/// How much a tenant may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimits {
    /// The bytes of all its files.
    pub bytes: u64,
    /// How many.
    pub files: u64,
}
