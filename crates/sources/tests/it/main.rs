//! What is fetched from the Hub and from web servers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fetching;
