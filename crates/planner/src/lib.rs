//! What computations cost at least on a machine.
//!
//! - [`Work`]: bytes to read and operations to compute, and the time that a machine needs for them
//! - [`Cost`]: the work of one step of a model, from its files and its configuration

mod cost;
mod roofline;

pub use cost::{Cost, Rows};
pub use roofline::{Bound, Work};
