//! HTTP without routes: connections, bodies, errors and their shape in each dialect, ids,
//! deadlines.

pub(crate) mod audit_entry;
pub(crate) mod caller;
pub(crate) mod connections;
pub(crate) mod deadline;
pub(crate) mod dialect;
pub(crate) mod error;
pub(crate) mod fields;
pub(crate) mod id;
pub(crate) mod request_id;
