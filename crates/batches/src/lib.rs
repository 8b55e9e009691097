//! Files that clients send, and batches: files of requests that are answered line by line, whatever
//! happens to the process.
//!
//! ```text
//!  file     what was sent or made: whose it is, and until when
//!  batch    where a batch stands
//!  line     the lines of a batch's file, checked
//!  store    both in SQLite, the files' bytes beside it by id
//!  finish   the end of a batch: its results become files
//! ```
//!
//! A line's result is written in the transaction that counts it, under the batch and the line, so
//! that it is there once or not at all: a process that goes on with a batch runs exactly the lines
//! that have none. Results become files when a batch ends, and until then they are rows.
//!
//! This crate knows nothing of HTTP or of what a request means.

mod batch;
mod error;
mod file;
mod finish;
mod line;
mod store;

pub use batch::{Batch, Counts, NewBatch, Problem, Status};
pub use error::StoreError;
pub use file::{FileLimits, Purpose, StoredFile};
pub use line::{Line, LineLimits, Lines, validate};
pub use store::{Kept, Removed, Store};
