//! Reading, checking and exporting adapters for hand-made bases, for the fixtures' models and for a
//! real model.
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
