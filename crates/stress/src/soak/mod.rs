//! `multigraft-stress soak`: mixed traffic for a long time. Nothing may be lost by it.
//!
//! ```text
//! start ─ greedy answers ─ traffic (five minutes) ─ idle ─ traffic (N minutes) ─ idle, compared
//!
//! traffic: clients that send one request after the other  ┐
//!          bursts of four times what can run at once      ├ request ─ answer ─ findings
//!          adapters that are replaced, added and removed  ┘
//! ```

mod findings;
mod request;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::arguments::SoakArguments;
use crate::harness::adapters::{RandomAdapters, Targets};
use crate::harness::answer::Answer;
use crate::harness::expected::GreedyRequest;
use crate::harness::idle::{self, IdleState};
use crate::harness::server::{Product, ServerProcess};
use findings::{Findings, Outcome};
use multigraft_loadgen::client::Client;
use multigraft_loadgen::output::print;
use multigraft_loadgen::record::Failure;
use request::{Expected, HangUp, Names, Request};

/// The server's `--max-running`.
const RUNNING: usize = 16;
/// A burst has so many times as many requests.
const BURST: usize = 4;
/// The server's `--max-waiting` per adapter: fewer than a burst has, so that some are refused.
const WAITING: usize = 8;
/// A small KV cache: it is full after the warm-up, and sequences are preempted. One whole context
/// has to fit.
const KV_MEMORY: &str = "24MiB";
const CONTEXT: &str = "1024";
/// Clients that send requests all the time.
const CLIENTS: usize = 12;
/// Adapters that do not change.
const STABLE: usize = 4;
/// All adapters: two more for the name that is replaced, one for the name that is added and
/// removed.
const ADAPTERS: usize = STABLE + 3;
/// The traffic before resources are first measured: after it, the memory that the allocator keeps
/// for each kind of request has reached its maximum.
const WARM_UP: Duration = Duration::from_secs(300);
const BURST_INTERVAL: Duration = Duration::from_secs(10);
const CHANGE_INTERVAL: Duration = Duration::from_millis(250);
/// How long a client waits after a refusal.
const RETRY_AFTER: Duration = Duration::from_millis(50);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(60);

/// The state of a run.
struct Soak {
    client: Client,
    names: Names,
    /// The fingerprints that answers under a name may have.
    fingerprints: HashMap<String, Vec<String>>,
    /// The first answer to each prompt, by the kind of request, the prompt and the fingerprint.
    answers: HashMap<(GreedyRequest, usize, String), String>,
    findings: Mutex<Findings>,
    stop: AtomicBool,
}

pub(crate) fn run(arguments: &SoakArguments) -> Result<ExitCode> {
    let minutes = arguments.minutes;
    ensure!(
        minutes.is_finite() && minutes > 0.0 && minutes < 1e6,
        "--minutes is {minutes}, but must be above 0"
    );
    let product = Product::find(&arguments.product)?;
    let config = product.config()?;
    let dir = tempfile::Builder::new().prefix("multigraft-soak-").tempdir();
    let dir = dir.context("a folder for adapters")?;
    let adapters = RandomAdapters {
        config: &config,
        rank: 8,
        targets: Targets::QueryValue,
    };
    let folders = adapters.write_all(dir.path(), ADAPTERS)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let time = Duration::from_secs_f64(60.0 * minutes);
    runtime.block_on(soak(&product, dir.path(), &folders, time))
}

async fn soak(product: &Product, dir: &Path, folders: &[PathBuf], time: Duration) -> Result<ExitCode> {
    let (running, waiting) = (RUNNING.to_string(), WAITING.to_string());
    let allowed = dir.display().to_string();
    let arguments = [
        ["--allow-source", allowed.as_str()],
        ["--max-running", running.as_str()],
        ["--max-waiting", waiting.as_str()],
        ["--kv-memory", KV_MEMORY],
        ["--context", CONTEXT],
    ];
    let server = product.start(arguments.into_iter().flatten())?;
    let mut soak = Soak::new(server.client()?, folders).await?;
    tracing::info!("{} greedy answers", soak.answers.len());

    let mut idle_states = Vec::new();
    for time in [WARM_UP, time] {
        soak.findings = Mutex::default();
        soak.stop = AtomicBool::new(false);
        soak = soak.traffic(folders, time, &server).await?;
        idle_states.push(IdleState::wait(&server, &soak.client).await?);
    }
    let [before, after] = idle_states[..] else {
        return Err(anyhow!("resources were not measured twice"));
    };
    let stats = soak.client.get("/stats").await?;
    let findings = soak.findings.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (table, kept) = idle::compare(before, after, "after five minutes", 0);
    print(&format!(
        "{}\nstatuses: {}\n",
        findings.table(),
        findings.statuses()
    ))?;
    print(&format!(
        "sequences of the engine: {} finished, {} cancelled, {} failed; {} preemptions\n\n{table}",
        stats["finished"], stats["cancelled"], stats["failed"], stats["preemptions"]
    ))?;
    for line in findings.examples() {
        print(&format!("{line}\n"))?;
    }
    let is_clean = findings.is_clean() && kept;
    print(if is_clean {
        "nothing was lost\n"
    } else {
        "SOMETHING WAS LOST\n"
    })?;
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Soak {
    /// Adds the adapters and sends every greedy request once.
    async fn new(client: Client, folders: &[PathBuf]) -> Result<Self> {
        let mut names = Names {
            stable: vec![String::new()],
            swapped: "swapped".to_owned(),
            guest: "guest".to_owned(),
        };
        for (index, folder) in folders[..STABLE].iter().enumerate() {
            let name = format!("a{index}");
            change(&client, Change::Put(&name, folder))
                .await
                .map_err(anyhow::Error::msg)?;
            names.stable.push(name);
        }
        let models = client.get("/v1/models").await?;
        models["data"][0]["id"]
            .as_str()
            .context("the base's name")?
            .clone_into(&mut names.stable[0]);
        let mut soak = Self {
            client,
            names: names.clone(),
            fingerprints: HashMap::new(),
            answers: HashMap::new(),
            findings: Mutex::default(),
            stop: AtomicBool::new(false),
        };
        for name in &names.stable {
            soak.learn(name, &GreedyRequest::ALL).await?;
        }
        for (name, folder) in [
            (&names.guest, &folders[STABLE]),
            (&names.swapped, &folders[STABLE + 1]),
            (&names.swapped, &folders[STABLE + 2]),
        ] {
            change(&soak.client, Change::Put(name, folder))
                .await
                .map_err(anyhow::Error::msg)?;
            soak.learn(name, &[GreedyRequest::Completion]).await?;
        }
        let mut fingerprints: Vec<&String> = soak.fingerprints.values().flatten().collect();
        fingerprints.sort_unstable();
        fingerprints.dedup();
        ensure!(
            fingerprints.len() == ADAPTERS + 1,
            "{ADAPTERS} adapters and the base have only the fingerprints {fingerprints:?}"
        );
        Ok(soak)
    }

    /// Sends the greedy requests to `name`, one by one, and remembers the answers.
    async fn learn(&mut self, name: &str, families: &[GreedyRequest]) -> Result<()> {
        for request in Request::all(name, families) {
            let Expected::Greedy(family, prompt) = request.expected else {
                continue;
            };
            let answer = async {
                let mut answer = self.client.post(request.path, request.body.clone()).await?;
                Answer::read(&mut answer, request.is_stream).await
            };
            let answer = answer
                .await
                .map_err(|failure| anyhow!("{name}, {}: {failure}", request.kind))?;
            let fingerprints = self.fingerprints.entry(name.to_owned()).or_default();
            if let Some(fingerprint) = answer
                .fingerprint
                .filter(|fingerprint| !fingerprints.contains(fingerprint))
            {
                fingerprints.push(fingerprint);
            }
            let fingerprint = fingerprints
                .last()
                .context("no answer has a fingerprint")?
                .clone();
            self.answers.insert((family, prompt, fingerprint), answer.text);
        }
        Ok(())
    }

    /// Traffic for a time, and until its last request has ended.
    async fn traffic(self, folders: &[PathBuf], time: Duration, server: &ServerProcess) -> Result<Self> {
        let soak = Arc::new(self);
        let mut tasks = JoinSet::new();
        for seed in 0..CLIENTS {
            tasks.spawn(Arc::clone(&soak).client(seed as u64));
        }
        tasks.spawn(Arc::clone(&soak).bursts());
        tasks.spawn(Arc::clone(&soak).changes(folders.to_vec()));
        let begin = Instant::now();
        while begin.elapsed() < time {
            sleep(PROGRESS_INTERVAL.min(time.saturating_sub(begin.elapsed()))).await;
            tracing::info!(
                "{:.1} minutes: {} requests, {} MiB resident",
                begin.elapsed().as_secs_f64() / 60.0,
                soak.with_findings(|findings| findings.sent()),
                server.resident()? >> 20,
            );
        }
        soak.stop.store(true, Ordering::Relaxed);
        while let Some(task) = tasks.join_next().await {
            task?;
        }
        Arc::into_inner(soak).context("a client has not ended")
    }

    async fn client(self: Arc<Self>, seed: u64) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        while !self.is_over() {
            let request = Request::random(&mut random, &self.names);
            if self.send(&request).await == Some(429) {
                sleep(RETRY_AFTER).await;
            }
        }
    }

    async fn bursts(self: Arc<Self>) {
        let mut random = ChaCha8Rng::seed_from_u64(CLIENTS as u64);
        while !self.is_over() {
            let mut burst = JoinSet::new();
            for _ in 0..BURST * RUNNING {
                let (soak, request) = (Arc::clone(&self), Request::random(&mut random, &self.names));
                burst.spawn(async move { soak.send(&request).await });
            }
            burst.join_all().await;
            sleep(BURST_INTERVAL).await;
        }
    }

    /// Replaces one adapter again and again, removes another and adds it again. At the end both are
    /// as they were.
    async fn changes(self: Arc<Self>, folders: Vec<PathBuf>) {
        let Names { swapped, guest, .. } = &self.names;
        while !self.is_over() {
            for next in [
                Change::Put(swapped, &folders[STABLE + 1]),
                Change::Remove(guest),
                Change::Put(swapped, &folders[STABLE + 2]),
                Change::Put(guest, &folders[STABLE]),
            ] {
                let outcome = match change(&self.client, next).await {
                    Ok(()) => Outcome::Answered,
                    Err(failure) => failed(&failure),
                };
                self.with_findings(|findings| findings.count("changes of adapters", outcome));
                sleep(CHANGE_INTERVAL).await;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn with_findings<T>(&self, f: impl FnOnce(&mut Findings) -> T) -> T {
        f(&mut self.findings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends a request and counts its outcome. Returns the status if it was refused.
    async fn send(&self, request: &Request) -> Option<u16> {
        let outcome = match request.expected {
            Expected::HungUp(hang_up) => self.hang_up(request, hang_up).await,
            _ => self.outcome(request).await,
        };
        let status = match outcome {
            Outcome::Refused(status) => Some(status),
            _ => None,
        };
        self.with_findings(|findings| findings.count(request.kind, outcome));
        status
    }

    async fn outcome(&self, request: &Request) -> Outcome {
        let answer = async {
            let mut answer = self.client.post(request.path, request.body.clone()).await?;
            Answer::read(&mut answer, request.is_stream).await
        };
        match (answer.await, request.expected) {
            (Err(Failure::Status(status, _)), Expected::Error(expected)) if status == expected => {
                Outcome::Refused(status)
            }
            (Ok(_), Expected::Error(expected)) => {
                Outcome::Wrong(format!("answered instead of {expected}: {}", request.body))
            }
            (Err(failure), _) => self.refused(request, failure),
            (Ok(answer), Expected::Greedy(family, prompt)) => self.judge(request, family, prompt, &answer),
            (Ok(_), _) => Outcome::Answered,
        }
    }

    /// An error is right if the server is full, or if the adapter is removed just then.
    fn refused(&self, request: &Request, failure: Failure) -> Outcome {
        match failure {
            Failure::Status(429, _) => Outcome::Refused(429),
            Failure::Status(status @ (404 | 410), _) if request.model == self.names.guest => {
                Outcome::Refused(status)
            }
            other => failed(&other),
        }
    }

    /// Compares a greedy answer with the first answer of the same fingerprint, which has to be one
    /// of the model's.
    fn judge(&self, request: &Request, family: GreedyRequest, prompt: usize, answer: &Answer) -> Outcome {
        let fingerprints = self
            .fingerprints
            .get(&request.model)
            .map_or(&[][..], Vec::as_slice);
        let fingerprint = match &answer.fingerprint {
            Some(fingerprint) => fingerprints.contains(fingerprint).then_some(fingerprint),
            // TGI's answers have no fingerprint. Only models that do not change are asked for in
            // that dialect.
            None => fingerprints.first(),
        };
        let Some(fingerprint) = fingerprint else {
            return Outcome::Wrong(format!(
                "{:?} answers under the name {}",
                answer.fingerprint, request.model
            ));
        };
        match self.answers.get(&(family, prompt, fingerprint.clone())) {
            Some(answers) if *answers == answer.text => Outcome::Answered,
            answers => Outcome::Wrong(format!(
                "{} says {:?} instead of {answers:?}",
                request.model, answer.text
            )),
        }
    }

    async fn hang_up(&self, request: &Request, hang_up: HangUp) -> Outcome {
        let (patience, most) = match hang_up {
            HangUp::Early(milliseconds) => (Duration::from_millis(milliseconds), usize::MAX),
            HangUp::After(parts) => (Duration::MAX, parts),
        };
        let read = async {
            let mut answer = self.client.post(request.path, request.body.clone()).await?;
            for _ in 0..most {
                if answer.next().await?.is_none() {
                    break;
                }
            }
            Ok(())
        };
        match timeout(patience, read).await {
            Ok(Err(failure)) => self.refused(request, failure),
            Ok(Ok(())) | Err(_) => Outcome::HungUp,
        }
    }
}

/// A failure with an error from the server, or a lost request.
fn failed(failure: &Failure) -> Outcome {
    let what = failure.to_string();
    match failure {
        Failure::Status(..) | Failure::InStream(_) => Outcome::Failed(what),
        Failure::Connect(_) | Failure::Broken(_) | Failure::TimedOut => Outcome::Lost(what),
    }
}

/// A change of the adapters.
#[derive(Clone, Copy)]
enum Change<'a> {
    /// Adds an adapter, or replaces the one of that name.
    Put(&'a str, &'a Path),
    Remove(&'a str),
}

async fn change(client: &Client, change: Change<'_>) -> Result<(), Failure> {
    let (path, body) = match change {
        Change::Put(name, source) => (
            "/v1/adapters",
            json!({"name": name, "source": source, "replace": true}),
        ),
        Change::Remove(name) => ("/unload_lora_adapter", json!({"lora_name": name})),
    };
    let mut answer = client.post(path, body.to_string()).await?;
    while answer.next().await?.is_some() {}
    Ok(())
}
