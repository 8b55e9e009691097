//! What admins do: adapters, API keys, reports of usage, metrics.

pub(crate) mod adapters;
pub(crate) mod keys;
pub(crate) mod scrape;
pub(crate) mod usage;
