//! A server of this program's own, for one measurement.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::time::sleep;

use super::super::serve::dialect::Dialect;
use super::super::serve::http::Server;
use super::super::serve::load::Target;
use crate::leftovers::resident;

/// How long a server is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(3);

/// How long nothing may come from it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that ends with this.
#[derive(Debug)]
pub(in crate::commands::bench) struct OwnServer {
    process: Child,
    pub(in crate::commands::bench) url: String,
    /// From its start until it listened.
    pub(in crate::commands::bench) start: Duration,
}

impl OwnServer {
    /// Starts `multigraft serve` with these arguments on a free port.
    pub(in crate::commands::bench) fn start<S: AsRef<OsStr>>(
        base: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own file")?;
        let begin = Instant::now();
        let mut process = Command::new(program)
            .args(["serve", "--log", "error", "--port", "0", "--base", base])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a server")?;
        let output = process.stdout.take().context("its output")?;
        let mut server = Self {
            process,
            url: String::new(),
            start: Duration::ZERO,
        };
        let mut lines = BufReader::new(output).lines();
        for line in &mut lines {
            let line = line?;
            if let Some(rest) = line.strip_prefix("listening on ") {
                server.start = begin.elapsed();
                server.url = rest.split_whitespace().next().unwrap_or_default().to_owned();
                // It must never wait for somebody to read.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(server);
            }
        }
        let ended = server.process.wait()?;
        bail!("the server ended before it listened: {ended}")
    }

    pub(in crate::commands::bench) fn http(&self) -> Result<Server> {
        Server::new(&self.url, PATIENCE)
    }

    /// Where it listens.
    pub(in crate::commands::bench) fn address(&self) -> Result<SocketAddr> {
        let address = self
            .url
            .strip_prefix("http://")
            .and_then(|address| address.parse().ok());
        address.with_context(|| format!("an address in {}", self.url))
    }

    /// Whether its process has not ended.
    pub(in crate::commands::bench) fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// For the load generator: the base and adapters by name.
    pub(in crate::commands::bench) async fn target(&self, adapters: Vec<String>) -> Result<Target> {
        let server = self.http()?;
        let models = server.get("/v1/models").await?;
        let base = models["data"][0]["id"]
            .as_str()
            .context("the base's name")?
            .to_owned();
        Ok(Target {
            server,
            dialect: Dialect::Openai { base, adapters },
        })
    }

    /// Resident memory, in bytes.
    pub(in crate::commands::bench) fn resident(&self) -> Result<u64> {
        let folder = Path::new("/proc").join(self.process.id().to_string());
        resident(&folder.join("status")).context("VmRSS of the server")
    }

    /// File handles that it has open.
    pub(in crate::commands::bench) fn handles(&self) -> Result<u64> {
        let folder = Path::new("/proc").join(self.process.id().to_string()).join("fd");
        Ok(fs::read_dir(folder)?.count() as u64)
    }

    /// [`Self::resident`] once nothing has been going on for a while: what loads took is given back
    /// a second after the last one.
    pub(in crate::commands::bench) async fn resident_at_rest(&self) -> Result<u64> {
        sleep(REST).await;
        self.resident()
    }

    /// Ends it as a power failure would.
    pub(in crate::commands::bench) fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Posts JSON and returns the answer's.
pub(in crate::commands::bench) async fn post(server: &Server, path: &str, body: Value) -> Result<Value> {
    let mut parts = server
        .post(path, body.to_string())
        .await
        .map_err(anyhow::Error::msg)?;
    let mut bytes = Vec::new();
    while let Some((part, _)) = parts.next().await.map_err(anyhow::Error::msg)? {
        bytes.extend_from_slice(&part);
    }
    serde_json::from_slice(&bytes).with_context(|| format!("{path}: {}", String::from_utf8_lossy(&bytes)))
}

/// Adds an adapter, or replaces one.
pub(in crate::commands::bench) async fn add(server: &Server, name: &str, source: &Path) -> Result<Value> {
    let body = serde_json::json!({"name": name, "source": source, "replace": true});
    post(server, "/v1/adapters", body).await
}
