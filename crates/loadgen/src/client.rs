//! A small HTTP client: one connection per request, the answer's body as it arrives.
//!
//! A new connection per request is what most clients of such servers use, and it keeps requests
//! independent of each other. Only plain HTTP is supported: a load generator runs beside its
//! server, and TLS would be measured with it.

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

use crate::record::Failure;

/// How many bytes of an error's body are read: its message is within them.
const ERROR_BYTES: usize = 4096;

/// Sends requests to one server.
#[derive(Clone, Debug)]
pub struct Client {
    host: String,
    port: u16,
    /// The prefix of every path: empty, or `/like/this`.
    prefix: String,
    /// A request fails if nothing arrives for this long.
    idle_timeout: Duration,
    /// The header with the API key.
    authorization: Option<HeaderValue>,
}

/// The body of an answer, part by part.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    idle_timeout: Duration,
}

impl Client {
    /// A client of the server at a URL like `http://127.0.0.1:8080`. A request fails if nothing
    /// arrives for `idle_timeout`.
    ///
    /// # Errors
    /// If the URL is none, names no host or has another scheme than `http`.
    pub fn new(url: &str, idle_timeout: Duration) -> Result<Self> {
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
            idle_timeout,
            authorization: None,
        })
    }

    /// The same client with an API key.
    ///
    /// # Errors
    /// If the key has characters that a header cannot hold.
    pub fn with_key(mut self, key: &str) -> Result<Self> {
        let header = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut header = header
            .ok()
            .context("the API key has characters that an HTTP header cannot hold")?;
        header.set_sensitive(true);
        self.authorization = Some(header);
        Ok(self)
    }

    /// Sends a POST request with a JSON body and returns the body of a successful answer.
    ///
    /// # Errors
    /// If there is no successful answer.
    pub async fn post(&self, path: &str, json: String) -> Result<Body, Failure> {
        self.send(Method::POST, path, json).await
    }

    /// Sends a PATCH request with a JSON body and returns the body of a successful answer.
    ///
    /// # Errors
    /// If there is no successful answer.
    pub async fn patch(&self, path: &str, json: String) -> Result<Body, Failure> {
        self.send(Method::PATCH, path, json).await
    }

    /// The JSON document at `path`.
    ///
    /// # Errors
    /// If there is no successful answer, or it is not JSON.
    pub async fn get(&self, path: &str) -> Result<serde_json::Value> {
        let cannot_get = || {
            format!(
                "cannot get http://{}:{}{}{path}",
                self.host, self.port, self.prefix
            )
        };
        let document = async {
            let mut body = self.send(Method::GET, path, String::new()).await?;
            body.collect().await
        };
        let document = document
            .await
            .map_err(anyhow::Error::msg)
            .with_context(cannot_get)?;
        match serde_json::from_slice(&document) {
            Ok(value) => Ok(value),
            Err(error) => bail!("{}: its answer is not JSON: {error}", cannot_get()),
        }
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Result<Body, Failure> {
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
            // The task ends with the connection, whose errors reach the body too.
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
        let response = timeout(self.idle_timeout, sent)
            .await
            .map_err(|_| Failure::TimedOut)??;
        let status = response.status();
        let mut body = Body {
            incoming: response.into_body(),
            idle_timeout: self.idle_timeout,
        };
        if status.is_success() {
            return Ok(body);
        }
        let mut message = Vec::new();
        while message.len() < ERROR_BYTES {
            match body.next().await {
                Ok(Some((part, _))) => message.extend_from_slice(&part),
                _ => break,
            }
        }
        Err(Failure::status(status.as_u16(), &message))
    }
}

impl Body {
    /// The next part and when it arrived; `None` at the end.
    ///
    /// # Errors
    /// If the connection breaks or nothing arrives for too long.
    pub async fn next(&mut self) -> Result<Option<(Bytes, Instant)>, Failure> {
        loop {
            let frame = timeout(self.idle_timeout, self.incoming.frame())
                .await
                .map_err(|_| Failure::TimedOut)?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(Failure::broken)?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some((data, Instant::now())));
            }
        }
    }

    /// All bytes up to the end.
    ///
    /// # Errors
    /// If the connection breaks or nothing arrives for too long.
    pub async fn collect(&mut self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some((part, _)) = self.next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_a_port_and_a_prefix_of_paths() {
        let client = Client::new("http://localhost:81/v2/", Duration::ZERO).expect("a URL");
        assert_eq!(
            (client.host.as_str(), client.port, client.prefix.as_str()),
            ("localhost", 81, "/v2")
        );
        let client = Client::new("http://[::1]", Duration::ZERO).expect("a URL");
        assert_eq!(
            (client.host.as_str(), client.port, client.prefix.as_str()),
            ("[::1]", 80, "")
        );
        for bad in ["https://x", "localhost:80", "", "http://"] {
            assert!(Client::new(bad, Duration::ZERO).is_err(), "{bad}");
        }
    }
}
