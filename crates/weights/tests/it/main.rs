//! The crate as its users see it: files in, tensors or errors out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod block_types;
mod builders;
mod corruption;
mod folder;
mod gguf;
mod safetensors;
