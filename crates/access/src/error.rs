//! Errors of keys and usage.

use multigraft_database::DatabaseError;

/// Why keys or usage could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The database could not be opened, read or written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A row of the database holds what multigraft never writes.
    #[error("key `{id}` is not as it was written: {problem}")]
    Damaged {
        /// The id of the key.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No key has this id or name.
    #[error("there is no key `{0}`; `multigraft keys ls` lists them")]
    Unknown(String),
    /// The key was revoked, which cannot be undone.
    #[error("key `{0}` is revoked, which cannot be undone; add another")]
    Revoked(String),
    /// Admin keys would exist for a shorter time than before, or none would.
    #[error(
        "no other admin's key lasts as long as `{0}`: give another the role `admin` and as late an end first, or use `multigraft \
         keys` at the server's data folder"
    )]
    LastAdmin(String),
    /// Another key has this name.
    #[error("there is a key called `{0}` already; choose another name")]
    NameTaken(String),
    /// A field of a key or a query is invalid: the sentence says why.
    #[error("{0}")]
    Invalid(String),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Why a secret is not accepted. Clients get the same answer for all of these, because it must not
/// tell them which keys exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No key has this id, or the key has another secret.
    #[error("unknown")]
    Unknown,
    /// The key was revoked.
    #[error("revoked")]
    Revoked,
    /// The key or this secret of it has expired.
    #[error("expired")]
    Expired,
}
