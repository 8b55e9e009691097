//! Memory: amounts as people write them, and how much this process could get.

mod available;
mod bytes;

pub(crate) use available::available;
pub(crate) use bytes::Bytes;
