//! HTTP without what it is for: connections, bodies, errors and how each dialect words them, ids,
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
