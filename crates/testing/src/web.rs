//! A web server of this machine: plain files, and the Hugging Face Hub's file protocol for
//! repositories that a test makes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use sha2::{Digest as _, Sha256};

/// A server that answers until the test's process ends.
#[derive(Clone, Debug)]
pub struct WebServer {
    address: SocketAddr,
    web: Arc<Mutex<Web>>,
}

#[derive(Debug, Default)]
struct Web {
    files: BTreeMap<String, Vec<u8>>,
    /// Path → where it redirects to.
    redirects: BTreeMap<String, String>,
    /// Repository → branch or commit → commit.
    revisions: BTreeMap<String, BTreeMap<String, String>>,
    /// Repository and commit → files.
    commits: BTreeMap<(String, String), Vec<String>>,
    /// What requests must bring, if anything.
    token: Option<String>,
    /// The next body ends after so many bytes, though more were announced.
    cut: Option<usize>,
    /// The next body of a path that ends so has its first byte changed.
    spoil: Option<String>,
    log: Vec<String>,
}

struct Answer {
    status: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl WebServer {
    /// One on a free port of the loopback.
    ///
    /// # Panics
    ///
    /// If the system has no port.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let web = Arc::<Mutex<Web>>::default();
        let shared = Arc::clone(&web);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let web = Arc::clone(&shared);
                thread::spawn(move || answer(&web, stream));
            }
        });
        Self { address, web }
    }

    /// `http://127.0.0.1:port`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a file at `path`, which begins with a slash.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.lock().files.insert(path.to_owned(), bytes.to_vec());
    }

    /// Redirects `path` to a URL.
    pub fn redirect(&self, path: &str, to: &str) {
        self.lock().redirects.insert(path.to_owned(), to.to_owned());
    }

    /// Makes `commit` (forty hexadecimal digits) the newest of the Hub repository `repo`.
    pub fn commit(&self, repo: &str, commit: &str, files: &[(&str, &[u8])]) {
        for (name, bytes) in files {
            self.put(&format!("/{repo}/resolve/{commit}/{name}"), bytes);
        }
        let mut web = self.lock();
        let names = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        web.commits.insert((repo.to_owned(), commit.to_owned()), names);
        let revisions = web.revisions.entry(repo.to_owned()).or_default();
        for revision in ["main", commit] {
            revisions.insert(revision.to_owned(), commit.to_owned());
        }
    }

    /// Requires `Authorization: Bearer token` of every request.
    pub fn require(&self, token: &str) {
        self.lock().token = Some(token.to_owned());
    }

    /// Lets the next body end after `bytes`.
    pub fn cut(&self, bytes: usize) {
        self.lock().cut = Some(bytes);
    }

    /// Changes a byte of the next body of a path that ends with `ending`.
    pub fn spoil(&self, ending: &str) {
        self.lock().spoil = Some(ending.to_owned());
    }

    /// What was asked for since the last call: method, path, and the range if one was named.
    #[expect(clippy::must_use_candidate, reason = "asking is how tests begin anew")]
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    fn lock(&self) -> MutexGuard<'_, Web> {
        self.web.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one request; the connection is closed then.
fn answer(web: &Mutex<Web>, mut stream: TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut web = web.lock().unwrap_or_else(PoisonError::into_inner);
    let range = headers
        .get("range")
        .map_or_else(String::new, |range| format!(" {range}"));
    web.log.push(format!("{method} {path}{range}"));
    let mut answer = web.answer(&method, &path, &headers);
    let mut head = format!("HTTP/1.1 {}\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = write!(head, "content-length: {}\r\n\r\n", answer.body.len());
    if method == "HEAD" {
        answer.body.clear();
    } else if answer.status.starts_with("20") && !path.starts_with("/api/") {
        if web
            .spoil
            .take_if(|ending| path.ends_with(ending.as_str()))
            .is_some()
            && let Some(byte) = answer.body.first_mut()
        {
            *byte ^= 1;
        }
        if let Some(most) = web.cut.take() {
            answer.body.truncate(most);
        }
    }
    drop(web);
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&answer.body).ok()
}

impl Web {
    fn answer(&self, method: &str, path: &str, headers: &BTreeMap<String, String>) -> Answer {
        let none = |status| Answer {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        };
        let wanted = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if wanted.is_some() && headers.get("authorization") != wanted.as_ref() {
            return none("401 Unauthorized");
        }
        if let Some(to) = self.redirects.get(path) {
            let mut answer = none("302 Found");
            answer.headers.push(("location".to_owned(), to.clone()));
            return answer;
        }
        if let Some(rest) = path.strip_prefix("/api/models/")
            && let Some((repo, revision)) = rest.split_once("/revision/")
        {
            return match self.info(repo, &revision.replace("%2F", "/")) {
                Some(json) => Answer {
                    status: "200 OK",
                    headers: vec![("content-type".to_owned(), "application/json".to_owned())],
                    body: json.into_bytes(),
                },
                None => none("404 Not Found"),
            };
        }
        // Where the Hub redirects to for large files.
        let file = self.files.get(path.strip_prefix("/large").unwrap_or(path));
        let Some(bytes) = file else {
            return none("404 Not Found");
        };
        let digest = Sha256::digest(bytes);
        let sha256 = digest
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        if path.contains("/resolve/") && path.ends_with(".safetensors") && !path.starts_with("/large") {
            let mut answer = none("302 Found");
            let linked = [
                ("location", format!("/large{path}")),
                ("x-linked-size", bytes.len().to_string()),
                ("x-linked-etag", format!("\"{sha256}\"")),
            ];
            let linked = linked.map(|(name, value)| (name.to_owned(), value));
            answer.headers.extend(linked);
            return answer;
        }
        let start = headers.get("range").and_then(|range| {
            let (start, _) = range.strip_prefix("bytes=")?.split_once('-')?;
            start.parse::<usize>().ok()
        });
        let etag = ("etag".to_owned(), format!("\"{}\"", &sha256[..40]));
        match start.filter(|start| *start < bytes.len() && method == "GET") {
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Answer {
                    status: "206 Partial Content",
                    headers: vec![etag, ("content-range".to_owned(), range)],
                    body: bytes[start..].to_vec(),
                }
            }
            None => Answer {
                status: "200 OK",
                headers: vec![etag],
                body: bytes.clone(),
            },
        }
    }

    fn info(&self, repo: &str, revision: &str) -> Option<String> {
        let commit = self.revisions.get(repo)?.get(revision)?;
        let names = self.commits.get(&(repo.to_owned(), commit.clone()))?;
        let siblings: Vec<String> = names
            .iter()
            .map(|name| format!("{{\"rfilename\": \"{name}\"}}"))
            .collect();
        Some(format!(
            "{{\"sha\": \"{commit}\", \"siblings\": [{}]}}",
            siblings.join(", ")
        ))
    }
}
