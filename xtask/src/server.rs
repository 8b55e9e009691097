//! Building the server, starting it, waiting for it, stopping it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::chat;
use crate::shell::{cargo, root};

/// The port that the demo takes if it is free.
const USUAL_PORT: u16 = 8080;
/// How long a server may take until it answers. Loading takes seconds, on a slow disk a minute.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at a starting server.
const START_POLL: Duration = Duration::from_millis(100);
/// How long one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How much of the log of a server that did not start is shown.
const SHOWN_LINES: usize = 20;

/// Builds the program and returns its path, wherever the target folder is.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    let mut command = cargo(
        "build --package multigraft --bin multigraft --message-format json-render-diagnostics --profile",
    );
    command.arg(profile);
    eprintln!("$ cargo build --package multigraft --profile {profile}");
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("multigraft could not be built");
    }
    // One JSON message a line; the last that names an executable is the program's.
    let executable = output.stdout.split(|&byte| byte == b'\n').rev().find_map(|line| {
        let message: Value = serde_json::from_slice(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executable.context("cargo did not say where it put the program")
}

/// A running server, stopped when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens, like `http://127.0.0.1:8080`.
    pub(crate) url: String,
    /// What it prints goes here.
    pub(crate) log: PathBuf,
}

impl Server {
    /// Starts the program with a base model and a folder of adapters, and waits until it answers.
    pub(crate) fn start(
        program: &Path,
        base: &Path,
        adapters: &Path,
        port: Option<u16>,
        log: PathBuf,
    ) -> Result<Self> {
        let port = port.map_or_else(free_port, Ok)?;
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(program)
            .arg("serve")
            .arg("--base")
            .arg(base)
            .arg("--adapters")
            .arg(adapters)
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut server = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            log,
        };
        server.wait_until_healthy()?;
        Ok(server)
    }

    fn wait_until_healthy(&mut self) -> Result<()> {
        let begin = Instant::now();
        let health = format!("{}/health", self.url);
        let agent = chat::agent(LOOK_LIMIT);
        while begin.elapsed() < START_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the server ended with {status}. Its last words:\n{}",
                    self.last_words()
                );
            }
            if agent.get(&health).call().is_ok() {
                return Ok(());
            }
            thread::sleep(START_POLL);
        }
        bail!(
            "the server did not answer within {START_LIMIT:?}. Its last words:\n{}",
            self.last_words()
        );
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }

    /// Waits until the server ends by itself or is ended by Ctrl-C.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is as good.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The usual port, or one that the system picks. Somebody else may take it before the server does;
/// then the server says so.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, USUAL_PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("no port is free")?;
    Ok(listener.local_addr()?.port())
}
