//! The Hugging Face Hub: its file protocol, and the cache that Hugging Face's libraries keep on
//! this machine.
//!
//! The cache has the layout of `huggingface_hub`. A repository has `refs/` (a file for each branch,
//! which holds a commit), `blobs/` (file contents, named by ETag) and `snapshots/` (a folder for
//! each commit, with links to the blobs). What one library downloads, the others find.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;

use crate::cache::lock;
use crate::error::FetchError;
use crate::save::{ByteStream, Expected, Remote, save};
use crate::transport::{CONNECT, REDIRECTS, STALL, block_on, with_causes};
use crate::wanted::{Fetched, Need, Wanted, WantedKinds};

/// The Hub's default address.
const ENDPOINT: &str = "https://huggingface.co";

/// The default branch.
const MAIN: &str = "main";

/// The Hub, with one user's token and cache.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<Token>,
    cache: PathBuf,
    offline: bool,
}

/// A token, which debug output does not show.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What the Hub's API returns for a revision.
#[derive(Debug, Deserialize)]
struct Info {
    /// The commit of the revision.
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A file to download.
struct Part {
    name: String,
    limit: u64,
    need: Need,
}

impl Hub {
    /// The Hub as Hugging Face's libraries find it: `HF_ENDPOINT`, `HF_TOKEN` (or the file that `hf
    /// auth login` writes), `HF_HUB_CACHE`, `HF_HOME` and `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        let variable = |name| {
            std::env::var(name)
                .ok()
                .filter(|value: &String| !value.is_empty())
        };
        let home = variable("HF_HOME").map_or_else(
            || {
                let caches = variable("XDG_CACHE_HOME").map(PathBuf::from);
                let user = variable("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
                caches.unwrap_or_else(|| user.join(".cache")).join("huggingface")
            },
            PathBuf::from,
        );
        let token = variable("HF_TOKEN").or_else(|| {
            let file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
            let token = fs::read_to_string(file).ok()?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        });
        let is_offline = |value: String| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on");
        Self {
            endpoint: variable("HF_ENDPOINT").map_or_else(
                || ENDPOINT.to_owned(),
                |endpoint| endpoint.trim_end_matches('/').to_owned(),
            ),
            token: token.map(Token),
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            offline: variable("HF_HUB_OFFLINE").is_some_and(is_offline),
        }
    }

    /// A Hub at `endpoint`, with its own cache folder.
    pub fn at(endpoint: &str, token: Option<&str>, cache: PathBuf) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|token| Token(token.to_owned())),
            cache,
            offline: false,
        }
    }

    /// The same Hub, restricted to its cache.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// Downloads the wanted files and returns their folder.
    pub(crate) async fn fetch(
        &self,
        repo: &str,
        revision: Option<&str>,
        wanted: &Wanted,
        progress: &(dyn Fn(&str, u64, u64) + Sync),
    ) -> Result<Fetched, FetchError> {
        let is_usable = |snapshot: &Path| {
            let mut required = wanted.files.iter().filter(|file| file.need == Need::Required);
            required.all(|file| snapshot.join(file.name).exists())
        };
        let parts = |info: &Info| {
            let mut parts = Vec::new();
            for file in wanted.files {
                let is_there = info.siblings.iter().any(|sibling| sibling.rfilename == file.name);
                if is_there {
                    parts.push(Part {
                        name: file.name.to_owned(),
                        limit: file.limit,
                        need: file.need,
                    });
                } else if file.need == Need::Required {
                    return Err(FetchError::Missing {
                        name: file.name.to_owned(),
                    });
                }
            }
            Ok(parts)
        };
        self.snapshot(repo, revision, (wanted.marker, is_usable), parts, progress)
            .await
    }

    /// Downloads the wanted files of `repo` and returns their folder. `progress` is called with the
    /// name of the file that is being downloaded, the bytes received so far, and its size. Blocks
    /// on the network.
    ///
    /// # Errors
    /// If the files cannot be downloaded, or if the repository lacks a required one.
    pub fn fetch_kinds(
        &self,
        repo: &str,
        revision: Option<&str>,
        wanted: &WantedKinds,
        progress: &(dyn Fn(&str, u64, u64) + Sync),
    ) -> Result<Fetched, FetchError> {
        let is_usable = |snapshot: &Path| snapshot.join(wanted.marker).exists();
        let parts = |info: &Info| {
            let names = info.siblings.iter().map(|sibling| sibling.rfilename.as_str());
            let names: Vec<&str> = names.filter(|name| (wanted.is_wanted)(name)).collect();
            for kind in wanted.required {
                if !names.iter().any(|name| (kind.matches)(name)) {
                    return Err(FetchError::Missing {
                        name: kind.what.to_owned(),
                    });
                }
            }
            let part = |name: &str| Part {
                name: name.to_owned(),
                limit: wanted.limit,
                need: Need::Required,
            };
            Ok(names.into_iter().map(part).collect())
        };
        block_on(self.snapshot(repo, revision, (wanted.marker, is_usable), parts, progress))
    }

    /// Downloads a snapshot of `repo`. A complete snapshot is marked with the file `marker`,
    /// because another program may have downloaded only some of the files. If the Hub cannot be
    /// reached, a snapshot in the cache that `is_usable` is returned as it is.
    async fn snapshot(
        &self,
        repo: &str,
        revision: Option<&str>,
        (marker, is_usable): (&str, impl Fn(&Path) -> bool),
        parts: impl Fn(&Info) -> Result<Vec<Part>, FetchError>,
        progress: &(dyn Fn(&str, u64, u64) + Sync),
    ) -> Result<Fetched, FetchError> {
        let revision = revision.unwrap_or(MAIN);
        let folder = Folder::new(&self.cache, repo, revision);
        let here = |commit: &str| {
            let snapshot = folder.snapshot(commit);
            is_usable(&snapshot).then(|| Fetched {
                folder: snapshot,
                revision: Some(commit.to_owned()),
            })
        };
        let known = match is_commit(revision) {
            true => here(revision),
            false => folder.commit().and_then(|commit| here(&commit)),
        };
        if is_commit(revision)
            && let Some(fetched) = known.as_ref()
            && fetched.folder.join(marker).exists()
        {
            return Ok(fetched.clone());
        }
        if self.offline {
            return known.ok_or(FetchError::Offline);
        }
        let info = match (self.info(repo, revision).await, known) {
            (Ok(info), _) => info,
            (Err(error), Some(fetched)) if error.is_transient() => {
                tracing::warn!(
                    "the Hub cannot be reached for `{repo}`, so the cached snapshot is used: {error}"
                );
                return Ok(fetched);
            }
            (Err(error), _) => return Err(error),
        };
        if !is_commit(&info.sha) {
            return Err(FetchError::Transport(format!("`{}` is no commit", info.sha)));
        }
        for part in parts(&info)? {
            self.fetch_file(&folder, repo, &info.sha, &part, progress).await?;
        }
        folder.set_branch(&info.sha)?;
        let snapshot = folder.snapshot(&info.sha);
        // Without the marker, the Hub is only asked once more.
        let _ = fs::write(snapshot.join(marker), "");
        Ok(Fetched {
            folder: snapshot,
            revision: Some(info.sha),
        })
    }

    async fn info(&self, repo: &str, revision: &str) -> Result<Info, FetchError> {
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{repo}/revision/{revision}", self.endpoint);
        let response = self
            .client(REDIRECTS)?
            .get(url)
            .headers(self.headers())
            .send()
            .await;
        let response = success(response.map_err(|error| FetchError::Transport(with_causes(&error)))?)?;
        response
            .json()
            .await
            .map_err(|error| FetchError::Transport(with_causes(&error)))
    }

    /// Downloads one file into the cache.
    async fn fetch_file(
        &self,
        folder: &Folder,
        repo: &str,
        commit: &str,
        part: &Part,
        progress: &(dyn Fn(&str, u64, u64) + Sync),
    ) -> Result<(), FetchError> {
        let link = folder.snapshot(commit).join(&part.name);
        if link.exists() {
            return Ok(());
        }
        let url = format!("{}/{repo}/resolve/{commit}/{}", self.endpoint, part.name);
        let head = self.head(&url).await?;
        if head.size > part.limit && part.need == Need::Optional {
            tracing::warn!("`{repo}`: {} has {} bytes and is skipped", part.name, head.size);
            return Ok(());
        }
        if head.size > part.limit {
            return Err(FetchError::TooLarge {
                name: part.name.clone(),
                size: head.size,
                limit: part.limit,
            });
        }
        let blob = folder.blobs().join(&head.etag);
        let _lock = lock(&folder.lock(&head.etag))?;
        fs::create_dir_all(folder.blobs()).map_err(|source| FetchError::file(&blob, source))?;
        let is_here = fs::metadata(&blob).is_ok_and(|blob| blob.len() == head.size);
        if !is_here {
            let expected = Expected {
                size: head.size,
                // The ETag of a large file is its SHA-256; that of other files is Git's hash.
                sha256: Some(head.etag.as_str()).filter(|etag| etag.len() == 64),
            };
            let unfinished = folder.blobs().join(format!("{}.incomplete", head.etag));
            let file = HubFile {
                client: self.client(REDIRECTS)?,
                headers: self.headers(),
                url,
            };
            let progress = |bytes| progress(&part.name, bytes, head.size);
            save(&file, expected, &unfinished, &blob, &progress).await?;
        }
        link_blob(&blob, &link).map_err(|source| FetchError::file(&link, source))
    }

    /// Size and ETag of a file. Large files are stored elsewhere, but the Hub itself states their
    /// size and ETag, so only redirects within the Hub are followed.
    async fn head(&self, url: &str) -> Result<Head, FetchError> {
        let client = self.client(0)?;
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let response = client.head(&url).headers(self.headers()).send().await;
            let response = response.map_err(|error| FetchError::Transport(with_causes(&error)))?;
            let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
            let etag = header("x-linked-etag").or_else(|| header(ETAG.as_str()));
            let size = header("x-linked-size").or_else(|| header(CONTENT_LENGTH.as_str()));
            if response.status().is_redirection() && header("x-linked-size").is_none() {
                let to = header(LOCATION.as_str()).filter(|to| to.starts_with('/') && !to.starts_with("//"));
                if let Some(to) = to {
                    url = format!("{}{to}", self.endpoint);
                    continue;
                }
            }
            if !response.status().is_redirection() {
                success(response)?;
            }
            let etag = etag.unwrap_or_default();
            let etag = etag.trim_start_matches("W/").trim_matches('"');
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if etag.is_empty() || etag.len() > 128 || !etag.chars().all(is_plain) {
                return Err(FetchError::Transport(format!(
                    "`{url}` was answered without a usable ETag"
                )));
            }
            let size = size.and_then(|size| size.parse().ok());
            let size =
                size.ok_or_else(|| FetchError::Transport(format!("`{url}` was answered without a size")))?;
            return Ok(Head {
                etag: etag.to_owned(),
                size,
            });
        }
        Err(FetchError::Transport(format!("`{url}`: too many redirects")))
    }

    fn client(&self, redirects: usize) -> Result<Client, FetchError> {
        let policy = match redirects {
            0 => Policy::none(),
            most => Policy::limited(most),
        };
        let builder = Client::builder().connect_timeout(CONNECT).read_timeout(STALL);
        let client = builder.redirect(policy).build();
        client.map_err(|error| FetchError::Transport(with_causes(&error)))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let bearer = self.token.as_ref().map(|token| format!("Bearer {}", token.0));
        if let Some(Ok(mut bearer)) = bearer.map(reqwest::header::HeaderValue::try_from) {
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        headers
    }
}

struct Head {
    etag: String,
    size: u64,
}

struct HubFile {
    client: Client,
    headers: HeaderMap,
    url: String,
}

impl Remote for HubFile {
    async fn read(&self, start: u64) -> Result<(ByteStream, bool), FetchError> {
        let mut request = self.client.get(&self.url).headers(self.headers.clone());
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        let response = request.send().await;
        let response = success(response.map_err(|error| FetchError::Transport(with_causes(&error)))?)?;
        let begins_there = start == 0 || response.status() == StatusCode::PARTIAL_CONTENT;
        let bytes = response.bytes_stream();
        let arriving = bytes.map(|bytes| bytes.map_err(|error| FetchError::Transport(with_causes(&error))));
        Ok((arriving.boxed(), begins_there))
    }
}

fn success(response: Response) -> Result<Response, FetchError> {
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => Err(FetchError::NoRepository),
        StatusCode::FORBIDDEN => Err(FetchError::Denied {
            reason: "the Hub answers 403; a gated repository must be asked for on its page first".to_owned(),
        }),
        status => Err(FetchError::Transport(format!("the Hub answers {status}"))),
    }
}

/// A repository in the Hub's cache.
struct Folder {
    cache: PathBuf,
    /// Name of the repository's folder, in the cache and among the locks.
    name: String,
    revision: String,
}

impl Folder {
    fn new(cache: &Path, repo: &str, revision: &str) -> Self {
        Self {
            cache: cache.to_owned(),
            name: format!("models--{}", repo.replace('/', "--")),
            revision: revision.to_owned(),
        }
    }

    fn root(&self) -> PathBuf {
        self.cache.join(&self.name)
    }

    fn blobs(&self) -> PathBuf {
        self.root().join("blobs")
    }

    /// The lock file that Hugging Face's libraries use too.
    fn lock(&self, etag: &str) -> PathBuf {
        let locks = self.cache.join(".locks").join(&self.name);
        locks.join(format!("{etag}.lock"))
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.root().join("snapshots").join(commit)
    }

    /// The commit that the revision pointed to at the last download.
    fn commit(&self) -> Option<String> {
        let commit = fs::read_to_string(self.branch()).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    fn set_branch(&self, commit: &str) -> Result<(), FetchError> {
        if is_commit(&self.revision) {
            return Ok(());
        }
        let branch = self.branch();
        let write = || {
            fs::create_dir_all(branch.parent().unwrap_or(&branch))?;
            fs::write(&branch, commit)
        };
        write().map_err(|source| FetchError::file(&branch, source))
    }

    /// The file that holds the revision's commit.
    fn branch(&self) -> PathBuf {
        self.root().join("refs").join(&self.revision)
    }
}

/// Links `link` to `blob`.
fn link_blob(blob: &Path, link: &Path) -> std::io::Result<()> {
    if let Some(above) = link.parent() {
        fs::create_dir_all(above)?;
    }
    let _ = fs::remove_file(link);
    #[cfg(unix)]
    {
        // A relative link, from snapshots/<commit>/ to blobs/, so that the cache can be moved.
        let name = blob.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), link)
    }
    #[cfg(not(unix))]
    fs::copy(blob, link).map(|_| ())
}

/// Whether `text` is a Git commit: 40 hexadecimal digits.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
