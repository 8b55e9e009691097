//! Downloads the wanted files of a source to this machine.

use std::path::PathBuf;

use crate::addresses::Trusted;
use crate::cache::Cache;
use crate::error::SourceError;
use crate::hub::Hub;
use crate::objects;
use crate::reference::Reference;
use crate::transport::block_on;
use crate::wanted::{Fetched, Wanted};

/// Options of a [`Fetcher`].
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Folder of the cache for object stores and web servers.
    pub cache: PathBuf,
    /// Limit of that cache in bytes. The least recently used sources are deleted first.
    pub cache_limit: u64,
    /// Web servers that may have addresses in the local network.
    pub trusted_hosts: Vec<String>,
    /// The Hub and its cache.
    pub hub: Hub,
}

/// Downloads files to this machine.
#[derive(Debug)]
pub struct Fetcher {
    cache: Cache,
    trusted: Trusted,
    hub: Hub,
}

impl Fetcher {
    /// A fetcher with `options`.
    pub fn new(options: FetchOptions) -> Self {
        Self {
            cache: Cache::new(options.cache, options.cache_limit),
            trusted: Trusted::from(options.trusted_hosts),
            hub: options.hub,
        }
    }

    /// Downloads the wanted files of the source `at` and returns their folder. `revision` is the
    /// state to download, if the source still has it. Blocks on the network, so it must not be
    /// called from a thread of an asynchronous runtime.
    ///
    /// # Errors
    /// If the files cannot be downloaded.
    pub fn fetch(
        &self,
        at: &Reference,
        revision: Option<&str>,
        wanted: &Wanted,
    ) -> Result<Fetched, SourceError> {
        self.fetch_with_progress(at, revision, wanted, &|_, _, _| ())
    }

    /// As [`Fetcher::fetch`]. `progress` is called with the name of the file that is being
    /// downloaded, the bytes received so far, and its size.
    ///
    /// # Errors
    /// As [`Fetcher::fetch`].
    pub fn fetch_with_progress(
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
    /// A fetcher for this user's environment, with its cache in the folder for temporary files.
    fn default() -> Self {
        Self::new(FetchOptions {
            cache: std::env::temp_dir().join("multigraft-adapters"),
            cache_limit: 16 << 30,
            trusted_hosts: Vec::new(),
            hub: Hub::from_env(),
        })
    }
}
