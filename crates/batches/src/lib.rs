//! The files that clients upload, and batches: files of requests that are answered line by line,
//! across crashes and restarts of the process.
//!
//! ```text
//!  file     uploaded and generated files: owner, purpose, expiry
//!  batch    the state of a batch
//!  line     the lines of an input file, parsed and checked
//!  store    files and batches in SQLite, and the files' bytes beside it by id
//!  finish   the end of a batch: its results become files
//! ```
//!
//! The result of a line is written in the transaction that counts it, under the id of the batch and
//! the number of the line. It exists once or not at all: a process that continues a batch runs
//! exactly the lines without a result. Results are rows until the batch ends; then they become
//! files.
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
