//! Settings: flags win over environment variables, these over the file, and the file over the
//! defaults.
//!
//! - [`options`]: the list of all settings, from which flags, environment variables, keys of the
//!   file and defaults follow ([`layers`] is the macro that reads it)
//! - [`values`]: the types of settings
//! - [`mod@file`]: the TOML file
//! - [`settings`]: checks, and values that follow from several settings
//! - `reference`: `docs/configuration.md`, which a test writes
//!
//! Settings are resolved once, into [`ModelSettings`] and [`ServerSettings`]. No other module reads
//! flags, variables or the file.

mod file;
mod layers;
mod options;
#[cfg(test)]
mod reference;
mod settings;
mod values;

pub(crate) use file::ConfigFile;
pub(crate) use options::{ModelOptions, ModelSettings, ServerOptions, ServerSettings};
pub(crate) use values::default_threads;
pub(crate) use values::{AdapterDtype, NamedSource, SelfTestMode, Switch};
