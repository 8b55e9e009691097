//! Bringing adapters' files to this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use multigraft_text::TEMPLATE_FILES;
use tokio::runtime::Builder;

use super::addresses::Trusted;
use super::cache::Cache;
use super::hub::Hub;
use super::objects;
use super::reference::Reference;
use crate::config::CONFIG_LIMIT;
use crate::error::AdapterError;
use crate::files::{CARD, CONFIG, WEIGHTS, WEIGHTS_LIMIT};
use crate::self_test::{REFERENCE_FILE, REFERENCE_LIMIT};
use crate::template::TEMPLATE_LIMIT;

/// How long a connection may take to come about.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// The most redirections of one request.
pub(super) const REDIRECTS: usize = 5;

/// The largest model card that is fetched.
const CARD_LIMIT: u64 = 4 << 20;

/// A file of an adapter.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdapterPart {
    pub(super) name: &'static str,
    /// The largest that is fetched.
    pub(super) limit: u64,
    pub(super) need: Need,
}

/// What becomes of an adapter that lacks a file, or has a too large one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It is none without it.
    Required,
    /// Without it, it is whole, but not if there is one that cannot be had.
    IfThere,
    /// It is as good without.
    Welcome,
}

/// What is fetched of an adapter; nothing else of its folder is looked at.
pub(super) const FILES: [AdapterPart; 7] = [
    AdapterPart {
        name: CONFIG,
        limit: CONFIG_LIMIT as u64,
        need: Need::Required,
    },
    AdapterPart {
        name: WEIGHTS,
        limit: WEIGHTS_LIMIT,
        need: Need::Required,
    },
    AdapterPart {
        name: CARD,
        limit: CARD_LIMIT,
        need: Need::Welcome,
    },
    AdapterPart {
        name: REFERENCE_FILE,
        limit: REFERENCE_LIMIT,
        need: Need::Welcome,
    },
    template(0),
    template(1),
    template(2),
];

const fn template(index: usize) -> AdapterPart {
    AdapterPart {
        name: TEMPLATE_FILES[index],
        limit: TEMPLATE_LIMIT,
        need: Need::IfThere,
    }
}

/// Why files could not be brought to this machine.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not there, or not for us.
    #[error("there is no such repository or revision, or it is private and HF_TOKEN does not open it")]
    NoRepository,
    /// A file of it.
    #[error("it holds no {name}")]
    Missing {
        /// The file.
        name: &'static str,
    },
    /// Not for us.
    #[error("access is denied: {reason}")]
    Denied {
        /// What the server said.
        reason: String,
    },
    /// Not in the Hub's cache, and the Hub may not be asked.
    #[error("it is not in the Hub's cache, and HF_HUB_OFFLINE forbids to ask the Hub")]
    Offline,
    /// A file beyond the size that is read.
    #[error("{name} has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The file.
        name: &'static str,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// An address of a local network.
    #[error(
        "`{host}` is no public address, and this server fetches from no other unless --allow-source names the host"
    )]
    Private {
        /// The host.
        host: String,
    },
    /// Less than was announced, again and again.
    #[error("only {arrived} of {size} bytes arrived")]
    Short {
        /// Bytes that did.
        arrived: u64,
        /// Bytes that should have.
        size: u64,
    },
    /// More than was announced.
    #[error("more than the announced {size} bytes arrived")]
    Long {
        /// Bytes that should have.
        size: u64,
    },
    /// Other bytes than were announced.
    #[error("it arrived damaged: its SHA-256 is {found} instead of {wanted}")]
    Damaged {
        /// What was announced.
        wanted: String,
        /// What arrived.
        found: String,
    },
    /// Replaced while it was fetched.
    #[error("it was replaced while it was being fetched: try again")]
    ChangedMeanwhile,
    /// Nothing arrives any more.
    #[error("nothing arrived for a minute")]
    Stalled,
    /// The network, or what the server answered.
    #[error("{0}")]
    Transport(String),
    /// Our own disk.
    #[error("`{}`: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl FetchError {
    pub(super) fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// Whether it may go well a moment later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Short { .. } | Self::Stalled | Self::Transport(_))
    }
}

/// How adapters are fetched.
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

/// Files that were brought here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Where they are now. Nobody changes them there.
    pub folder: PathBuf,
    /// What brings the same files again: a commit of the Hub, or what the object store said of
    /// their state.
    pub revision: Option<String>,
}

/// Brings adapters' files to this machine.
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

    /// The folder with the files of the adapter that is `at`, in the state `revision` if that is
    /// known and still to be had. Waits for the network: not for threads of an asynchronous
    /// runtime.
    ///
    /// # Errors
    /// If they cannot be brought here.
    pub fn fetch(&self, at: &Reference, revision: Option<&str>) -> Result<Fetched, AdapterError> {
        self.fetch_telling(at, revision, &|_, _, _| ())
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
        progress: &(dyn Fn(&str, u64, u64) + Sync),
    ) -> Result<Fetched, AdapterError> {
        let fetched = match at {
            Reference::Folder(folder) | Reference::Upload { folder } => Ok(Fetched {
                folder: folder.clone(),
                revision: None,
            }),
            Reference::Hub {
                repo,
                revision: wanted,
            } => {
                let revision = revision.or(wanted.as_deref());
                block_on(self.hub.adapter(repo, revision, progress))
            }
            Reference::Url(url) => block_on(objects::fetch(
                url,
                revision,
                &self.cache,
                &self.trusted,
                progress,
            )),
        };
        fetched.map_err(|reason| AdapterError::Fetch {
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

/// Runs a download on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, FetchError>>) -> Result<T, FetchError> {
    install_tls();
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| FetchError::Transport(error.to_string()))?;
    runtime.block_on(future)
}

/// Says which implementation of TLS there is; a second time it changes nothing.
fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
