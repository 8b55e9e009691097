//! The caller of a request: authentication, what the caller may see, the audit log and the time
//! limit.

pub(crate) mod audit;
pub(crate) mod authenticate;
pub(crate) mod session;
pub(crate) mod time_limit;
