//! What the stress tests share.

pub(crate) mod adapters;
pub(crate) mod answer;
pub(crate) mod expected;
pub(crate) mod idle;
pub(crate) mod server;
