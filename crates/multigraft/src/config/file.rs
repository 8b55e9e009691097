//! The TOML file.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::options::{ModelOptions, ServerOptions};

/// A configuration file: two tables whose keys are the names of the flags. An unknown key is an
/// error.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// The base model and its adapters.
    pub model: ModelOptions,
    /// The HTTP server.
    pub server: ServerOptions,
}

impl ConfigFile {
    /// Reads the file; without one, nothing is set.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
        let mut file =
            Self::parse(&text).with_context(|| format!("configuration file {}", path.display()))?;
        file.resolve_paths(path.parent().unwrap_or(Path::new("")));
        Ok(file)
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    /// Paths in the file are relative to it, not to where the program was started.
    fn resolve_paths(&mut self, folder: &Path) {
        self.model.resolve_paths(folder);
        self.server.resolve_paths(folder);
        // A base may also be a name. It is a path if there is something there.
        if let Some(base) = &mut self.model.base {
            let path = folder.join(&*base);
            if path.exists() {
                *base = path.to_string_lossy().into_owned();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use multigraft_sources::Reference;

    use super::*;
    use crate::{
        config::values::{KvDtype, Switch},
        memory::Bytes,
    };

    #[test]
    fn keys_are_the_flags_names() {
        let file = ConfigFile::parse(
            "[model]\nbase = \"m.gguf\"\nkv-memory = \"2GiB\"\nadapter-dtype = \"f32\"\nkv-dtype = \"int8\"\nprefix-cache = \"off\"\nadapter.a = \"x\"\n\
             [server]\nport = 9000\nhost = \"0.0.0.0\"\n",
        )
        .expect("valid");
        assert_eq!(file.model.kv_memory, Some(Bytes(2 << 30)));
        assert_eq!(file.model.prefix_cache, Some(Switch::Off));
        assert_eq!(file.model.kv_dtype, Some(KvDtype::Int8));
        assert_eq!(file.model.adapter[0].name, "a");
        assert_eq!(file.server.port, Some(9000));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        for (text, key) in [
            ("[model]\nbsae = \"x\"\n", "bsae"),
            ("[server]\nports = 1\n", "ports"),
            ("[serve]\nport = 1\n", "serve"),
            ("port = 1\n", "port"),
        ] {
            let error = ConfigFile::parse(text).expect_err(text).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.toml");
        fs::write(
            &path,
            "[model]\nbase = \"smollm2\"\nadapters = \"all\"\nadapter.a = \"x\"\n",
        )
        .expect("written");
        let file = ConfigFile::read(Some(&path)).expect("valid");
        assert_eq!(file.model.adapters, Some(folder.path().join("all")));
        assert_eq!(
            file.model.adapter[0].at,
            Reference::Folder(folder.path().join("x"))
        );
        assert_eq!(file.model.base.as_deref(), Some("smollm2"));
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let error = ConfigFile::read(Some(Path::new("/no/such.toml"))).expect_err("missing");
        assert!(format!("{error:#}").contains("/no/such.toml"));
    }
}
