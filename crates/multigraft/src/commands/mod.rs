//! One module for each subcommand. Each returns the exit status. An error is bad input: status 2.

pub(crate) mod adapters;
pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod serve;
pub(crate) mod usage;
pub(crate) mod verify;
