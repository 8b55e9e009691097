//! The Hugging Face Hub: its file protocol, and the cache that Hugging Face's own libraries keep on
//! this machine.
//!
//! The cache's layout is that of `huggingface_hub`: a repository has `refs/` (branches, a commit in
//! each), `blobs/` (contents, called by their ETag) and `snapshots/` (a folder for each commit,
//! with links to blobs). What one library fetched, the others find.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;

use crate::cache::lock;
use crate::error::FetchError;
use crate::save::{Arriving, Expected, Remote, save};
use crate::transport::{CONNECT, REDIRECTS, STALL, block_on, described};
use crate::wanted::{Fetched, Need, Wanted, WantedKinds};

/// Where the Hub is if nothing else is said.
const ENDPOINT: &str = "https://huggingface.co";

/// The branch that is meant if none is named.
const MAIN: &str = "main";

/// The Hub, as one user reaches it.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<Token>,
    cache: PathBuf,
    offline: bool,
}

/// Not shown, wherever it is printed.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What the Hub says of a revision.
#[derive(Debug, Deserialize)]
struct Info {
    /// The commit.
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
}

/// A file to be fetched.
struct Part {
    name: String,
    limit: u64,
    need: Need,
}

impl Hub {
    /// As Hugging Face's libraries find it: `HF_ENDPOINT`, `HF_TOKEN` (or the file that `hf auth
    /// login` writes), `HF_HUB_CACHE`, `HF_HOME` and `HF_HUB_OFFLINE`.
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

    /// One at `endpoint`, with a cache of its own.
    pub fn at(endpoint: &str, token: Option<&str>, cache: PathBuf) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|token| Token(token.to_owned())),
            cache,
            offline: false,
        }
    }

    /// The same, without ever asking the network.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.offline = true;
        self
    }

    /// The folder with the wanted files.
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

    /// The folder with the files of `repo` that are `wanted`. `progress` is told which file is
    /// fetched, how many bytes of it are there, and how many it has. Waits for the network.
    ///
    /// # Errors
    /// If they cannot be brought here, or if the repository lacks one that is required.
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
            for (what, is_it) in wanted.required {
                if !names.iter().any(|name| is_it(name)) {
                    return Err(FetchError::Missing {
                        name: (*what).to_owned(),
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

    /// A snapshot of `repo`. Once all parts are there, it is marked by a file called `whole`: a
    /// part of them may be there by somebody else. One that is here and `is_usable` is taken as it
    /// is where the Hub cannot be asked.
    async fn snapshot(
        &self,
        repo: &str,
        revision: Option<&str>,
        (whole, is_usable): (&str, impl Fn(&Path) -> bool),
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
            && fetched.folder.join(whole).exists()
        {
            return Ok(fetched.clone());
        }
        if self.offline {
            return known.ok_or(FetchError::Offline);
        }
        let info = match (self.info(repo, revision).await, known) {
            (Ok(info), _) => info,
            (Err(error), Some(fetched)) if error.may_pass() => {
                tracing::warn!(
                    "the Hub cannot be asked for `{repo}`, so what is in its cache is used: {error}"
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
        folder.point_to(&info.sha)?;
        let snapshot = folder.snapshot(&info.sha);
        // Without it the Hub is asked again, no more.
        let _ = fs::write(snapshot.join(whole), "");
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
        let response = checked(response.map_err(|error| FetchError::Transport(described(&error)))?)?;
        response
            .json()
            .await
            .map_err(|error| FetchError::Transport(described(&error)))
    }

    /// Brings one file into the cache.
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
            tracing::warn!("`{repo}`: {} has {} bytes and is left out", part.name, head.size);
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
                // Of large files the ETag is the SHA-256, of others Git's hash.
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
        place(&blob, &link).map_err(|source| FetchError::file(&link, source))
    }

    /// Size and ETag of a file. Large ones are elsewhere, but the Hub itself says what they are; so
    /// only redirections within it are followed.
    async fn head(&self, url: &str) -> Result<Head, FetchError> {
        let client = self.client(0)?;
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let response = client.head(&url).headers(self.headers()).send().await;
            let response = response.map_err(|error| FetchError::Transport(described(&error)))?;
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
                checked(response)?;
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
        client.map_err(|error| FetchError::Transport(described(&error)))
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
    async fn read(&self, start: u64) -> Result<(Arriving, bool), FetchError> {
        let mut request = self.client.get(&self.url).headers(self.headers.clone());
        if start > 0 {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        let response = request.send().await;
        let response = checked(response.map_err(|error| FetchError::Transport(described(&error)))?)?;
        let begins_there = start == 0 || response.status() == StatusCode::PARTIAL_CONTENT;
        let bytes = response.bytes_stream();
        let arriving = bytes.map(|bytes| bytes.map_err(|error| FetchError::Transport(described(&error))));
        Ok((arriving.boxed(), begins_there))
    }
}

fn checked(response: Response) -> Result<Response, FetchError> {
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
    /// The repository's folder there, and at the locks.
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

    /// Where Hugging Face's libraries lock too.
    fn lock(&self, etag: &str) -> PathBuf {
        let locks = self.cache.join(".locks").join(&self.name);
        locks.join(format!("{etag}.lock"))
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.root().join("snapshots").join(commit)
    }

    /// The commit that the revision was when it was fetched last.
    fn commit(&self) -> Option<String> {
        let commit = fs::read_to_string(self.branch()).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    fn point_to(&self, commit: &str) -> Result<(), FetchError> {
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

    /// Where it stands which commit the revision is.
    fn branch(&self) -> PathBuf {
        self.root().join("refs").join(&self.revision)
    }
}

/// Puts `blob` at `link`.
fn place(blob: &Path, link: &Path) -> std::io::Result<()> {
    if let Some(above) = link.parent() {
        fs::create_dir_all(above)?;
    }
    let _ = fs::remove_file(link);
    #[cfg(unix)]
    {
        // Relative, so that the cache can be moved: from snapshots/<commit>/ to blobs/.
        let name = blob.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(Path::new("../../blobs").join(name), link)
    }
    #[cfg(not(unix))]
    fs::copy(blob, link).map(|_| ())
}

/// Forty hexadecimal digits, as Git's commits have.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
