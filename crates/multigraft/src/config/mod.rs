//! Settings: flags win over environment variables, these over the file, and the file over the
//! defaults. They are resolved once, into [`ModelSettings`] and [`ServerSettings`]; nothing else in
//! the program reads any of them.

mod file;
mod options;
#[cfg(test)]
mod reference;
mod settings;

pub(crate) use file::ConfigFile;
pub(crate) use options::{AdapterDtype, ModelOptions, NamedSource, SelfTestMode, ServerOptions};
pub(crate) use settings::{ModelSettings, ServerSettings, default_threads};
