//! What the server promises its clients, as data: limits of requests, the headers of answers, which
//! model answers.

pub(crate) mod headers;
pub(crate) mod limits;
pub(crate) mod model;
pub(crate) mod routes;
