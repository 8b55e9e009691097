//! Bringing files to this machine.

use std::path::PathBuf;

use crate::addresses::Trusted;
use crate::cache::Cache;
use crate::error::SourceError;
use crate::hub::Hub;
use crate::objects;
use crate::reference::Reference;
use crate::transport::block_on;
use crate::wanted::{Fetched, Wanted};

/// How files are fetched.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Where what comes from object stores and web servers is kept.
    pub cache: PathBuf,
    /// How much of it, in bytes: what was not used for longest goes first.
    pub cache_limit: u64,
    /// Web servers that may be in the local network.
    pub trusted_hosts: Vec<String>,
    /// The Hub.
    pub hub: Hub,
}

/// Brings files to this machine.
#[derive(Debug)]
pub struct Fetcher {
    cache: Cache,
    trusted: Trusted,
    hub: Hub,
}

impl Fetcher {
    /// With `options`.
    pub fn new(options: FetchOptions) -> Self {
        Self {
            cache: Cache::new(options.cache, options.cache_limit),
            trusted: Trusted::from(options.trusted_hosts),
            hub: options.hub,
        }
    }

    /// The folder with the wanted files of what is `at`, in the state `revision` if that is
    /// known and still to be had. Waits for the network: not for threads of an asynchronous
    /// runtime.
    ///
    /// # Errors
    /// If they cannot be brought here.
    pub fn fetch(
        &self,
        at: &Reference,
        revision: Option<&str>,
        wanted: &Wanted,
    ) -> Result<Fetched, SourceError> {
        self.fetch_telling(at, revision, wanted, &|_, _, _| ())
    }

    /// The same; `progress` is told which file arrives, how many of its bytes are here, and how
    /// many it has.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub fn fetch_telling(
        &self,
        at: &Reference,
        revision: Option<&str>,
        wanted: &Wanted,
        progress: &(dyn Fn(&str, u64, u64) + Sync),
    ) -> Result<Fetched, SourceError> {
        let fetched = match at {
            Reference::Folder(folder) | Reference::Upload { folder } => Ok(Fetched {
                folder: folder.clone(),
                revision: None,
            }),
            Reference::Hub {
                repo,
                revision: written,
            } => {
                let revision = revision.or(written.as_deref());
                block_on(self.hub.fetch(repo, revision, wanted, progress))
            }
            Reference::Url(url) => block_on(objects::fetch(
                url,
                revision,
                wanted,
                &self.cache,
                &self.trusted,
                progress,
            )),
        };
        fetched.map_err(|reason| SourceError::Fetch {
            at: at.to_string(),
            reason,
        })
    }
}

impl Default for Fetcher {
    /// As this user's environment says.
    fn default() -> Self {
        Self::new(FetchOptions {
            cache: std::env::temp_dir().join("multigraft-adapters"),
            cache_limit: 16 << 30,
            trusted_hosts: Vec::new(),
            hub: Hub::from_env(),
        })
    }
}
