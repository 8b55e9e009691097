//! A running `multigraft serve`.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
};

use multigraft_testing::smollm2;
use serde_json::Value;

/// A server with the real model, on a free port of this machine. It is killed when this is dropped.
pub(crate) struct Serving {
    child: Child,
    /// Its host and port.
    pub(crate) address: String,
    log: Option<JoinHandle<String>>,
}

impl Serving {
    /// Starts one and waits until it listens.
    pub(crate) fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_multigraft"));
        super::without_settings(&mut command);
        let mut child = command
            .args(arguments)
            .args(["--port", "0", "--base"])
            .arg(smollm2())
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut stderr = child.stderr.take().expect("piped");
        let log = thread::spawn(move || {
            let mut log = Vec::new();
            // The log up to an error is a log, too.
            let _ = stderr.read_to_end(&mut log);
            String::from_utf8_lossy(&log).into_owned()
        });
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let prefix = "listening on http://";
        let address = lines.find_map(|line| {
            let line = line.expect("UTF-8");
            Some(line.strip_prefix(prefix)?.split(' ').next()?.to_owned())
        });
        // The server must never block on a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            log: Some(log),
            address: address.expect("it listens"),
        }
    }

    /// The status and the body of an answer. `headers` are whole lines.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&Value>,
    ) -> (u16, String) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (status.expect("a status"), body.to_owned())
    }

    /// Stops it as an operator does, with SIGTERM. Returns its log.
    pub(crate) fn stop(mut self) -> String {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
        self.log.take().expect("taken once").join().expect("no panic")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
