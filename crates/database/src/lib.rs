//! Opening SQLite files and changing them: every database of the data folder goes through
//! [`Database`].
//!
//! A database is opened in WAL mode, with foreign keys enforced and a bounded wait for other
//! processes, and its tables are migrated to the newest version in one transaction. Every change is
//! a transaction too. The version of the tables is SQLite's `user_version`, which is read *inside*
//! the migrating transaction: of two processes that open a database of an earlier version at once,
//! one migrates it and the other finds it migrated. (The crate `rusqlite_migration` reads the
//! version before its transaction begins, and would replace these few lines only.)

mod database;
mod error;
mod migrations;

pub use database::{Database, Durability, Options, Sharing};
pub use error::DatabaseError;
