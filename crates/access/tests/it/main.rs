//! The crate as its users see it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod keys;
