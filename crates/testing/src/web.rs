//! A web server of this machine: plain files, and the Hugging Face Hub's file protocol for
//! repositories that a test makes.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LOCATION, RANGE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime;

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

type Answer = Response<Vec<u8>>;

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
        listener
            .set_nonblocking(true)
            .expect("a socket that does not block");
        let web = Arc::<Mutex<Web>>::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&web));
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                axum::serve(listener, router).await
            })
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
        lock(&self.web)
    }
}

fn lock(web: &Mutex<Web>) -> MutexGuard<'_, Web> {
    web.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers one request; the connection is closed then.
async fn answer(
    State(web): State<Arc<Mutex<Web>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let mut web = lock(&web);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let range = range.map_or_else(String::new, |range| format!(" {range}"));
    web.log.push(format!("{method} {path}{range}"));
    let (mut head, mut body) = web.answer(&method, path, &headers).into_parts();
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    head.headers.insert(CONTENT_LENGTH, body.len().into());
    let is_file = method != Method::HEAD && head.status.is_success() && !path.starts_with("/api/");
    if !is_file {
        return Response::from_parts(head, Body::from(body));
    }
    if web
        .spoil
        .take_if(|ending| path.ends_with(ending.as_str()))
        .is_some()
        && let Some(byte) = body.first_mut()
    {
        *byte ^= 1;
    }
    let body = match web.cut.take() {
        Some(most) if most < body.len() => {
            body.truncate(most);
            broken_off(body)
        }
        _ => Body::from(body),
    };
    Response::from_parts(head, body)
}

/// A body after which the connection breaks, though more was announced.
fn broken_off(body: Vec<u8>) -> Body {
    let fault = async {
        // What was written so far is sent first.
        tokio::task::yield_now().await;
        Err(io::Error::other("the test cut the body here"))
    };
    Body::from_stream(stream::iter([Ok(body)]).chain(stream::once(fault)))
}

fn status(status: StatusCode) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = status;
    answer
}

/// Names and file names of tests are ASCII.
#[expect(clippy::expect_used, reason = "a test fails by panicking")]
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a header's value")
}

impl Web {
    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Answer {
        let wanted = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if let Some(wanted) = wanted
            && headers.get(AUTHORIZATION) != Some(&value(&wanted))
        {
            return status(StatusCode::UNAUTHORIZED);
        }
        if let Some(to) = self.redirects.get(path) {
            let mut answer = status(StatusCode::FOUND);
            answer.headers_mut().insert(LOCATION, value(to));
            return answer;
        }
        if let Some(rest) = path.strip_prefix("/api/models/")
            && let Some((repo, revision)) = rest.split_once("/revision/")
        {
            return match self.info(repo, &revision.replace("%2F", "/")) {
                Some(json) => {
                    let mut answer = Answer::new(json.into_bytes());
                    answer
                        .headers_mut()
                        .insert(CONTENT_TYPE, value("application/json"));
                    answer
                }
                None => status(StatusCode::NOT_FOUND),
            };
        }
        // Where the Hub redirects to for large files.
        let file = self.files.get(path.strip_prefix("/large").unwrap_or(path));
        let Some(bytes) = file else {
            return status(StatusCode::NOT_FOUND);
        };
        let digest = Sha256::digest(bytes);
        let sha256 = digest
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        if path.contains("/resolve/") && path.ends_with(".safetensors") && !path.starts_with("/large") {
            let mut answer = status(StatusCode::FOUND);
            answer.headers_mut().extend([
                (LOCATION, value(&format!("/large{path}"))),
                (HeaderName::from_static("x-linked-size"), bytes.len().into()),
                (
                    HeaderName::from_static("x-linked-etag"),
                    value(&format!("\"{sha256}\"")),
                ),
            ]);
            return answer;
        }
        let start = headers.get(RANGE).and_then(|range| {
            let (start, _) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
            start.parse::<usize>().ok()
        });
        let mut answer = match start.filter(|start| *start < bytes.len() && method == Method::GET) {
            Some(start) => {
                let mut answer = Answer::new(bytes[start..].to_vec());
                *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                answer.headers_mut().insert(CONTENT_RANGE, value(&range));
                answer
            }
            None => Answer::new(bytes.clone()),
        };
        answer
            .headers_mut()
            .insert(ETAG, value(&format!("\"{}\"", &sha256[..40])));
        answer
    }

    fn info(&self, repo: &str, revision: &str) -> Option<String> {
        let commit = self.revisions.get(repo)?.get(revision)?;
        let names = self.commits.get(&(repo.to_owned(), commit.clone()))?;
        let siblings: Vec<Value> = names.iter().map(|name| json!({ "rfilename": name })).collect();
        Some(json!({ "sha": commit, "siblings": siblings }).to_string())
    }
}
