//! Batches and their state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The state of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// The input file has not been checked yet.
    Validating,
    /// The input file is invalid.
    Failed,
    /// Lines are being run.
    InProgress,
    /// Every line has a result. The results are being written to files.
    Finalizing,
    /// Every line has a result in a file.
    Completed,
    /// The completion window ended before every line was run.
    Expired,
    /// The batch was cancelled. Its results are being written to files.
    Cancelling,
    /// The batch was cancelled before every line was run.
    Cancelled,
}

impl Status {
    const ALL: [Self; 8] = [
        Self::Validating,
        Self::Failed,
        Self::InProgress,
        Self::Finalizing,
        Self::Completed,
        Self::Expired,
        Self::Cancelling,
        Self::Cancelled,
    ];

    /// The state in OpenAI's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether the state never changes again.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Completed | Self::Expired | Self::Cancelled
        )
    }
}

/// The fields that a batch is created with. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// The id: letters, digits, `-` and `_`.
    pub id: String,
    /// The tenant that owns the batch; `None` on a server without keys.
    pub tenant: Option<String>,
    /// The id of the key that the lines run as.
    pub key: Option<String>,
    /// The path of every line's request.
    pub endpoint: String,
    /// The id of the input file.
    pub input: String,
    /// When the batch was created.
    pub created: u64,
    /// When the completion window ends: lines that have not run by then never do.
    pub expires: u64,
    /// Text that the client stores with the batch.
    pub metadata: BTreeMap<String, String>,
    /// How many seconds the output files are kept; `None` is forever.
    pub keep_output: Option<u64>,
}

/// Numbers of lines of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All lines; 0 until the input file has been checked.
    pub total: u64,
    /// Lines that were answered.
    pub completed: u64,
    /// Lines that ended in an error.
    pub failed: u64,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The fields that it was created with.
    pub begun: NewBatch,
    /// The state.
    pub status: Status,
    /// When it entered each state, in seconds since 1970, by [`Status::as_str`].
    pub times: BTreeMap<String, u64>,
    /// Numbers of lines.
    pub counts: Counts,
    /// What is wrong with the input file.
    pub problems: Vec<Problem>,
    /// The id of the output file, which holds the answers; `None` if there are none.
    pub output: Option<String>,
    /// The id of the error file, which holds the other results; `None` if there are none.
    pub errors: Option<String>,
}

/// What is wrong with a line or with the input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind of mistake.
    pub code: String,
    /// The number of the line, counted from 1; `None` if it is the file as a whole.
    pub line: Option<u64>,
    /// A sentence: what is wrong, and what would be right.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
}
