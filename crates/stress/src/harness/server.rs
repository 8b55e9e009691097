//! Servers of the program under test, each for one measurement.

use std::env::{self, consts::EXE_SUFFIX};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use multigraft_loadgen::client::Client;
use multigraft_loadgen::dialect::Dialect;
use multigraft_loadgen::generator::Target;
use multigraft_model::{Config, ModelFiles};
use serde_json::Value;
use tokio::time::sleep;

use crate::arguments::ProductArguments;

/// How long a server is left alone before its memory is measured.
const SETTLING: Duration = Duration::from_secs(3);

/// A request fails if nothing arrives from the server for this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// The program under test and the base that it serves.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    program: PathBuf,
    /// A GGUF file or a Hugging Face folder.
    pub(crate) base: String,
}

impl Product {
    /// The program that the arguments name, or else `multigraft` in the folder of this program.
    pub(crate) fn find(arguments: &ProductArguments) -> Result<Self> {
        let program = match &arguments.program {
            Some(program) => program.clone(),
            None => env::current_exe()
                .context("the path of this program")?
                .with_file_name(format!("multigraft{EXE_SUFFIX}")),
        };
        ensure!(
            program.is_file(),
            "there is no program {}: build it with `cargo build -p multigraft`, or name another one with --program",
            program.display()
        );
        Ok(Self {
            program,
            base: arguments.base.clone(),
        })
    }

    /// The configuration of the base.
    pub(crate) fn config(&self) -> Result<Config> {
        Ok(ModelFiles::open(Path::new(&self.base))?.config()?)
    }

    /// Starts `multigraft serve` with these arguments on a free port.
    pub(crate) fn start<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<ServerProcess> {
        let begin = Instant::now();
        let mut process = Command::new(&self.program)
            .args(["serve", "--log", "error", "--port", "0", "--base", &self.base])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let output = process.stdout.take().context("the server's output")?;
        let mut server = ServerProcess {
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
                // The server must never block on a full pipe.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(server);
            }
        }
        let ended = server.process.wait()?;
        bail!("the server ended before it listened: {ended}")
    }
}

/// A running server, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    process: Child,
    pub(crate) url: String,
    /// The time from its start until it listened.
    pub(crate) start: Duration,
}

impl ServerProcess {
    /// A client of this server.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(&self.url, IDLE_TIMEOUT)
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        let address = self
            .url
            .strip_prefix("http://")
            .and_then(|address| address.parse().ok());
        address.with_context(|| format!("an address in {}", self.url))
    }

    /// Whether its process still runs.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_none())
    }

    /// The target of a load generator: the server, with these adapters by name.
    pub(crate) async fn target(&self, adapters: Vec<String>) -> Result<Target> {
        let client = self.client()?;
        let models = client.get("/v1/models").await?;
        let base = models["data"][0]["id"]
            .as_str()
            .context("the base's name")?
            .to_owned();
        Ok(Target {
            client,
            dialect: Dialect::Openai { base, adapters },
        })
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = self.proc_folder().join("status");
        let status =
            fs::read_to_string(&status).with_context(|| format!("cannot read {}", status.display()))?;
        resident(&status).context("VmRSS of the server")
    }

    /// The number of its open file handles.
    pub(crate) fn handles(&self) -> Result<u64> {
        Ok(fs::read_dir(self.proc_folder().join("fd"))?.count() as u64)
    }

    fn proc_folder(&self) -> PathBuf {
        Path::new("/proc").join(self.process.id().to_string())
    }

    /// [`Self::resident`] after a few idle seconds: the server returns freed memory to the system
    /// one second after the last work.
    pub(crate) async fn resident_when_idle(&self) -> Result<u64> {
        sleep(SETTLING).await;
        self.resident()
    }

    /// Kills it, as a power failure would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Both fail only if the process has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Posts JSON and returns the JSON of the answer.
pub(crate) async fn post(client: &Client, path: &str, body: Value) -> Result<Value> {
    let answer = async { client.post(path, body.to_string()).await?.collect().await };
    let bytes = answer.await.map_err(anyhow::Error::msg)?;
    serde_json::from_slice(&bytes).with_context(|| format!("{path}: {}", String::from_utf8_lossy(&bytes)))
}

/// Adds an adapter, or replaces the one of that name.
pub(crate) async fn add(client: &Client, name: &str, source: &Path) -> Result<Value> {
    let body = serde_json::json!({"name": name, "source": source, "replace": true});
    post(client, "/v1/adapters", body).await
}

/// Resident memory in bytes, from the text of `/proc/PID/status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
