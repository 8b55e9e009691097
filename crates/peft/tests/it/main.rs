//! Adapters' files, read for bases made by hand, for the fixtures' models and for a real one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accepted;
mod export;
mod fixtures;
mod gguf;
mod mixed_equals_alone;
mod reference;
mod refusals;
mod scaled;
mod smollm2_quality;
mod support;
mod templates;
