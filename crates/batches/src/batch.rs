//! Batches as they stand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Its file is still to be checked.
    Validating,
    /// Its file was no batch.
    Failed,
    /// Its lines are run.
    InProgress,
    /// All have results, which are to become files.
    Finalizing,
    /// All have results, in files.
    Completed,
    /// Its time was over before all lines were run.
    Expired,
    /// It was cancelled, and its results are to become files.
    Cancelling,
    /// It was cancelled before all lines were run.
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

    /// As OpenAI spells it.
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

    /// Whether nothing more will become of it.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Completed | Self::Expired | Self::Cancelled
        )
    }
}

/// A batch to begin. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBatch {
    /// By which it is asked for; letters, digits, `-` and `_`.
    pub id: String,
    /// Whose it is; `None` where there were no keys.
    pub tenant: Option<String>,
    /// The id of the key whose requests they are.
    pub key: Option<String>,
    /// The path that every line is for.
    pub endpoint: String,
    /// The file of its lines.
    pub input: String,
    /// When it was made.
    pub created: u64,
    /// When what was not run by then is given up.
    pub expires: u64,
    /// What its maker wants to find again with it.
    pub metadata: BTreeMap<String, String>,
    /// For how many seconds its results are kept; `None` is for good.
    pub keep_output: Option<u64>,
}

/// How many of its lines are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them; 0 until they were counted.
    pub total: u64,
    /// Those that were answered.
    pub completed: u64,
    /// Those that were not.
    pub failed: u64,
}

/// A batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// As it was begun.
    pub begun: NewBatch,
    /// Where it stands.
    pub status: Status,
    /// When it came to where it was, and stands, in seconds since 1970, by [`Status::as_str`].
    pub times: BTreeMap<String, u64>,
    /// How many lines are done.
    pub counts: Counts,
    /// What is wrong with its file.
    pub problems: Vec<Problem>,
    /// The file of its answers, if there are any.
    pub output: Option<String>,
    /// The file of what was not answered, if there is anything.
    pub errors: Option<String>,
}

/// What is wrong with a line, or with a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of mistake it is.
    pub code: String,
    /// Which, counted from 1; `None` if it is the file as a whole.
    pub line: Option<u64>,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
}
