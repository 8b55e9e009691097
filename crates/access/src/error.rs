//! What goes wrong.

use multigraft_database::DatabaseError;

/// Why keys could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The database could not be opened, read or written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// What the database holds makes no sense.
    #[error("key `{id}` is not as it was written: {problem}")]
    Damaged {
        /// The key.
        id: String,
        /// What is wrong.
        problem: String,
    },
    /// There is no such key.
    #[error("there is no key `{0}`; `multigraft keys ls` lists them")]
    Unknown(String),
    /// The key was revoked, which is for good.
    #[error("key `{0}` is revoked, which cannot be undone; add another")]
    Revoked(String),
    /// There would be an admin's key for a shorter time than before, or none.
    #[error(
        "no other admin's key lasts as long as `{0}`: give another the role `admin` and as late an end first, or use `multigraft \
         keys` at the server's data folder"
    )]
    LastAdmin(String),
    /// Another key has the name.
    #[error("there is a key called `{0}` already; choose another name")]
    NameTaken(String),
    /// A field of a key.
    #[error("{0}")]
    Invalid(String),
    /// The system has no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Why a secret opens nothing. Clients are told the same of all: which keys exist is nobody's
/// business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such key, or it has another secret.
    #[error("unknown")]
    Unknown,
    /// It was revoked.
    #[error("revoked")]
    Revoked,
    /// Its time, or that of this secret, is over.
    #[error("expired")]
    Expired,
}
