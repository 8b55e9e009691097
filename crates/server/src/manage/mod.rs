//! Management: adapters, API keys, usage reports, metrics.

pub(crate) mod adapters;
pub(crate) mod keys;
pub(crate) mod scrape;
pub(crate) mod usage;
