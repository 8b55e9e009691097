//! Laws of the whole crate.
