//! A load generator for servers of language models: the library behind `multigraft bench serve`.
//!
//! ```text
//! traffic (what is sent) ─ generator (when) ─ dialect (request bodies) ─ client ─ the server
//!                              │
//!                           record ─ report, plot
//! ```
//!
//! [`run`] is the whole command. The stress tests use the parts, and all benchmarks print their
//! figures with [`table`] and [`output`].
//!
//! The generator runs on one thread and does as little as possible per token, because on most
//! machines it shares the cores with the server that it measures.

pub mod arguments;
pub mod client;
pub mod dialect;
pub mod generator;
pub mod output;
mod plot;
pub mod record;
pub mod report;
mod run;
pub mod statistics;
pub mod table;
pub mod traffic;

pub use arguments::LoadArguments;
pub use run::run;
