//! Who sends a request, and what of the server that shows.

pub(crate) mod audit;
pub(crate) mod authenticate;
pub(crate) mod session;
pub(crate) mod time_limit;
