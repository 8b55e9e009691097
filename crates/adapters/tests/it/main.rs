//! The registry of adapters: their names and versions, their lives in memory, and their self test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod catalogue;
mod fetched;
mod folders;
mod memory;
mod merged;
mod registry;
mod self_test;
mod stored;
mod support;
mod templates;
