//! Chats: makes a prompt of messages and tools, and finds tool calls in the answer.

mod continued;
pub(crate) mod conversation;
pub(crate) mod messages;
pub(crate) mod tools;
