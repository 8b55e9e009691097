//! What the server promises its clients, as data: the routes and their dialects, the fields and
//! limits of requests, the headers of answers, and the model that answers.

pub(crate) mod dialect;
pub(crate) mod fields;
pub(crate) mod headers;
pub(crate) mod limits;
pub(crate) mod model;
pub(crate) mod route;
pub(crate) mod routes;
