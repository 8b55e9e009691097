//! The engine over the CPU backend and real models.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod activated;
mod answers;
mod chats;
mod embeddings;
mod sampled;
mod served;
