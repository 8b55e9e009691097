//! Chats: messages and tools in, a prompt out; calls of tools in the answer.

mod continued;
pub(crate) mod conversation;
pub(crate) mod messages;
pub(crate) mod tools;
