//! Starts a server for measurements, waits for it and stops it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::chat;
use crate::shell::root;

/// Loading a large model from a cold disk takes minutes, and so does vLLM's compiling.
const START_LIMIT: Duration = Duration::from_secs(900);
/// The interval of polling a starting server: short, because its start is measured.
const POLL: Duration = Duration::from_millis(20);
/// How long a server may take to stop after a signal.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A running server, stopped when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pub(super) url: String,
    /// The time from its start until it answered.
    pub(super) started_in: Duration,
}

impl Running {
    /// Starts a server that accepts `--host` and `--port` and answers at `/health`. Its output goes
    /// to `log`.
    pub(super) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let port = free_port()?;
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .current_dir(root())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let words = format!("{command:?}").replace('"', "");
        eprintln!("$ {words}");
        let begin = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot run `{words}`"))?;
        let mut running = Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
            started_in: Duration::ZERO,
        };
        let health = format!("{}/health", running.url);
        // Only the name: these messages are shown in tables that leave this machine.
        let name = log.file_name().unwrap_or_default().display();
        let agent = chat::agent(Duration::from_secs(5));
        while agent.get(&health).call().is_err() {
            if let Some(status) = running.child.try_wait()? {
                bail!("the server ended with {status}; its log is {name}");
            }
            if begin.elapsed() > START_LIMIT {
                bail!("the server did not answer within {START_LIMIT:?}; its log is {name}");
            }
            thread::sleep(POLL);
        }
        running.started_in = begin.elapsed();
        Ok(running)
    }

    /// Its resident memory in MiB, if the system reports it.
    pub(super) fn resident_mib(&self) -> Option<f64> {
        let status = fs::read_to_string(PathBuf::from(format!("/proc/{}/status", self.child.id()))).ok()?;
        resident(&status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let runs = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        // A signal first: a script that started a server has to stop that, too.
        if runs(&mut self.child) {
            _ = Command::new("kill").arg(self.child.id().to_string()).status();
        }
        let begin = Instant::now();
        while begin.elapsed() < STOP_LIMIT && runs(&mut self.child) {
            thread::sleep(POLL);
        }
        // Both fail only if the process has ended.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The resident memory in MiB, from the text of `/proc/<pid>/status`.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_mib() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   2048 kB\nThreads:\t1\n"), Some(2.0));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
