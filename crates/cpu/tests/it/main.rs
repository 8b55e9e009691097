//! Base models on this machine's processor.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod reference;
