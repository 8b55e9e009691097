//! A small HTTP client: a connection for every request, the answer's body as it comes.
//!
//! A new connection each time is what most clients of such servers do, and it keeps clients from
//! sharing fate. Only plain HTTP: a load generator runs beside its server, and TLS would be
//! measured with it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::record::Failure;

/// Longer bodies than this are of no use in an error message.
const ERROR_BYTES: usize = 4096;

/// Where to send requests.
#[derive(Clone, Debug)]
pub(in crate::commands::bench) struct Server {
    host: String,
    port: u16,
    /// What stands before every path; empty or `/like/this`.
    prefix: String,
    /// How long nothing may come.
    patience: Duration,
    /// The header that the server wants, if it wants a key.
    authorization: Option<HeaderValue>,
}

/// The body of an answer, part by part.
#[derive(Debug)]
pub(in crate::commands::bench) struct Parts {
    body: Incoming,
    patience: Duration,
}

impl Server {
    /// The server at a URL like `http://127.0.0.1:8080`.
    pub(in crate::commands::bench) fn new(url: &str, patience: Duration) -> Result<Self> {
        let uri: Uri = url
            .parse()
            .ok()
            .with_context(|| format!("`{url}` is no URL; write it like http://127.0.0.1:8080"))?;
        ensure!(
            uri.scheme_str() == Some("http"),
            "`{url}` must begin with http://; other schemes are not supported"
        );
        let host = uri.host().with_context(|| format!("`{url}` names no host"))?;
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            patience,
            authorization: None,
        })
    }

    /// The same with an API key.
    pub(in crate::commands::bench) fn with_key(mut self, key: &str) -> Result<Self> {
        let header = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut header = header.ok().context("the API key holds what a header cannot")?;
        header.set_sensitive(true);
        self.authorization = Some(header);
        Ok(self)
    }

    /// Sends a request with a JSON body and returns the parts of a successful answer.
    pub(in crate::commands::bench) async fn post(&self, path: &str, json: String) -> Result<Parts, Failure> {
        self.send(Method::POST, path, json).await
    }

    /// Sends a change as JSON and returns the parts of a successful answer.
    pub(in crate::commands::bench) async fn patch(&self, path: &str, json: String) -> Result<Parts, Failure> {
        self.send(Method::PATCH, path, json).await
    }

    /// What the server has at `path`.
    pub(in crate::commands::bench) async fn get(&self, path: &str) -> Result<serde_json::Value> {
        let what = || {
            format!(
                "cannot get http://{}:{}{}{path}",
                self.host, self.port, self.prefix
            )
        };
        let mut parts = self
            .send(Method::GET, path, String::new())
            .await
            .map_err(anyhow::Error::msg)
            .with_context(what)?;
        let mut bytes = Vec::new();
        while let Some((part, _)) = parts
            .next()
            .await
            .map_err(anyhow::Error::msg)
            .with_context(what)?
        {
            bytes.extend_from_slice(&part);
        }
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(value),
            Err(error) => bail!("{}: its answer is not JSON: {error}", what()),
        }
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Result<Parts, Failure> {
        let sent = async {
            let stream = TcpStream::connect((self.host.trim_matches(['[', ']']), self.port))
                .await
                .map_err(|error| Failure::connect(&error))?;
            stream
                .set_nodelay(true)
                .map_err(|error| Failure::connect(&error))?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(Failure::broken)?;
            // It ends with the connection; its errors reach the body too.
            tokio::spawn(connection);
            let mut request = Request::builder()
                .method(method)
                .uri(format!("{}{path}", self.prefix))
                .header(HOST, format!("{}:{}", self.host, self.port))
                .header(CONTENT_TYPE, "application/json")
                .header(CONNECTION, "close")
                .body(Full::new(Bytes::from(body)))
                .map_err(Failure::broken)?;
            if let Some(key) = &self.authorization {
                request.headers_mut().insert(AUTHORIZATION, key.clone());
            }
            sender.send_request(request).await.map_err(Failure::broken)
        };
        let response = timeout(self.patience, sent)
            .await
            .map_err(|_| Failure::TimedOut)??;
        let status = response.status();
        let mut parts = Parts {
            body: response.into_body(),
            patience: self.patience,
        };
        if status.is_success() {
            return Ok(parts);
        }
        let mut message = Vec::new();
        while message.len() < ERROR_BYTES {
            match parts.next().await {
                Ok(Some((part, _))) => message.extend_from_slice(&part),
                _ => break,
            }
        }
        Err(Failure::status(status.as_u16(), &message))
    }
}

impl Parts {
    /// The next part and when it came; `None` at the end.
    pub(in crate::commands::bench) async fn next(&mut self) -> Result<Option<(Bytes, Instant)>, Failure> {
        loop {
            let frame = timeout(self.patience, self.body.frame())
                .await
                .map_err(|_| Failure::TimedOut)?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(Failure::broken)?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some((data, Instant::now())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_a_port_and_what_stands_before_paths() {
        let server = Server::new("http://localhost:81/v2/", Duration::ZERO).expect("a URL");
        assert_eq!(
            (server.host.as_str(), server.port, server.prefix.as_str()),
            ("localhost", 81, "/v2")
        );
        let server = Server::new("http://[::1]", Duration::ZERO).expect("a URL");
        assert_eq!(
            (server.host.as_str(), server.port, server.prefix.as_str()),
            ("[::1]", 80, "")
        );
        for bad in ["https://x", "localhost:80", "", "http://"] {
            assert!(Server::new(bad, Duration::ZERO).is_err(), "{bad}");
        }
    }
}
