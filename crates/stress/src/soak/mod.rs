//! `multigraft bench soak`: mixed traffic for a long time, and whether anything is lost by it.
//!
//! ```text
//! start ─ known answers ─ traffic: five minutes ─ rest ─ traffic: N minutes ─ rest ─ the two compared
//!
//! traffic: clients that ask one thing after the other ┐
//!          bursts of four times what can run at once  ├ ask ─ answer ─ tally
//!          adapters replaced, added and removed       ┘
//! ```

mod ask;
mod findings;

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
use ask::{Ask, Due, HangUp, Names};
use findings::{Outcome, Tally};
use multigraft_loadgen::client::Client;
use multigraft_loadgen::output::print;
use multigraft_loadgen::record::Failure;

/// Sequences that run at once.
const RUNNING: usize = 16;
/// A burst is so many times that.
const BURST: usize = 4;
/// Requests of one adapter that may wait: fewer than a burst has, so that some are refused.
const WAITING: usize = 8;
/// Little memory for keys and values, so that it is full after the warm-up, and sequences have to
/// give way. A whole context has to fit.
const KV_MEMORY: &str = "24MiB";
const CONTEXT: &str = "1024";
/// Clients that ask all the time.
const CLIENTS: usize = 12;
/// Adapters that stay as they are.
const STABLE: usize = 4;
/// All that are made: two for the name that is swapped, one for the name that comes and goes.
const MADE: usize = STABLE + 3;
/// Before the figures that later ones are held to: until what the allocator keeps of each kind of
/// request has come to its most.
const WARM_UP: Duration = Duration::from_secs(300);
const BETWEEN_BURSTS: Duration = Duration::from_secs(10);
const BETWEEN_CHANGES: Duration = Duration::from_millis(250);
/// How long a client that was refused stays away.
const STAYING_AWAY: Duration = Duration::from_millis(50);
const BETWEEN_NEWS: Duration = Duration::from_secs(60);

/// What the traffic works with.
struct Soak {
    http: Client,
    names: Names,
    /// What may have made an answer under a name.
    makers: HashMap<String, Vec<String>>,
    /// Who answered what to which prompt, alone and at the start.
    known: HashMap<(GreedyRequest, usize, String), String>,
    tally: Mutex<Tally>,
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
    let maker = RandomAdapters {
        config: &config,
        rank: 8,
        targets: Targets::QueryValue,
    };
    let folders = maker.write_all(dir.path(), MADE)?;
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
    tracing::info!("{} answers are known", soak.known.len());

    let mut rests = Vec::new();
    for time in [WARM_UP, time] {
        soak.tally = Mutex::default();
        soak.stop = AtomicBool::new(false);
        soak = soak.traffic(folders, time, &server).await?;
        rests.push(IdleState::wait(&server, &soak.http).await?);
    }
    let [before, after] = rests[..] else {
        return Err(anyhow!("two looks at the server"));
    };
    let stats = soak.http.get("/stats").await?;
    let tally = soak.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (table, kept) = idle::compare(before, after, "after five minutes", 0);
    print(&format!("{}\nstatuses: {}\n", tally.table(), tally.statuses()))?;
    print(&format!(
        "the engine: finished {}, cancelled {}, failed {}, gave way {} times\n\n{table}",
        stats["finished"], stats["cancelled"], stats["failed"], stats["preemptions"]
    ))?;
    for line in tally.told() {
        print(&format!("{line}\n"))?;
    }
    let good = tally.is_good() && kept;
    print(if good {
        "nothing was lost\n"
    } else {
        "SOMETHING WAS LOST\n"
    })?;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Soak {
    /// Adds the adapters and asks everything once.
    async fn new(http: Client, folders: &[PathBuf]) -> Result<Self> {
        let mut names = Names {
            stable: vec![String::new()],
            swapped: "swapped".to_owned(),
            guest: "guest".to_owned(),
        };
        for (index, folder) in folders[..STABLE].iter().enumerate() {
            let name = format!("a{index}");
            change(&http, Change::Put(&name, folder))
                .await
                .map_err(anyhow::Error::msg)?;
            names.stable.push(name);
        }
        let models = http.get("/v1/models").await?;
        models["data"][0]["id"]
            .as_str()
            .context("the base's name")?
            .clone_into(&mut names.stable[0]);
        let mut soak = Self {
            http,
            names: names.clone(),
            makers: HashMap::new(),
            known: HashMap::new(),
            tally: Mutex::default(),
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
            change(&soak.http, Change::Put(name, folder))
                .await
                .map_err(anyhow::Error::msg)?;
            soak.learn(name, &[GreedyRequest::Completion]).await?;
        }
        let mut makers: Vec<&String> = soak.makers.values().flatten().collect();
        makers.sort_unstable();
        makers.dedup();
        ensure!(
            makers.len() == MADE + 1,
            "{MADE} adapters and the base are only {makers:?}"
        );
        Ok(soak)
    }

    /// Asks `name` everything, alone, and remembers the answers.
    async fn learn(&mut self, name: &str, families: &[GreedyRequest]) -> Result<()> {
        for ask in Ask::all(name, families) {
            let Due::Known(family, prompt) = ask.due else {
                continue;
            };
            let answer = async {
                let mut parts = self.http.post(ask.path, ask.body.clone()).await?;
                Answer::read(&mut parts, ask.stream).await
            };
            let answer = answer
                .await
                .map_err(|failure| anyhow!("{name}, {}: {failure}", ask.kind))?;
            let makers = self.makers.entry(name.to_owned()).or_default();
            if let Some(maker) = answer.fingerprint.filter(|maker| !makers.contains(maker)) {
                makers.push(maker);
            }
            let maker = makers.last().context("no answer says what made it")?.clone();
            self.known.insert((family, prompt, maker), answer.text);
        }
        Ok(())
    }

    /// Traffic for a while, until the last request has ended.
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
            sleep(BETWEEN_NEWS.min(time.saturating_sub(begin.elapsed()))).await;
            tracing::info!(
                "{:.1} minutes: {} requests, {} MiB resident",
                begin.elapsed().as_secs_f64() / 60.0,
                soak.with_tally(|tally| tally.asked()),
                server.resident()? >> 20,
            );
        }
        soak.stop.store(true, Ordering::Relaxed);
        while let Some(task) = tasks.join_next().await {
            task?;
        }
        Arc::into_inner(soak).context("all clients have ended")
    }

    async fn client(self: Arc<Self>, seed: u64) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        while !self.is_over() {
            let ask = Ask::random(&mut random, &self.names);
            if self.ask(&ask).await == Some(429) {
                sleep(STAYING_AWAY).await;
            }
        }
    }

    async fn bursts(self: Arc<Self>) {
        let mut random = ChaCha8Rng::seed_from_u64(CLIENTS as u64);
        while !self.is_over() {
            let mut burst = JoinSet::new();
            for _ in 0..BURST * RUNNING {
                let (soak, ask) = (Arc::clone(&self), Ask::random(&mut random, &self.names));
                burst.spawn(async move { soak.ask(&ask).await });
            }
            burst.join_all().await;
            sleep(BETWEEN_BURSTS).await;
        }
    }

    /// Replaces one adapter over and over, removes another and adds it again. It ends with both as
    /// they were.
    async fn changes(self: Arc<Self>, folders: Vec<PathBuf>) {
        let Names { swapped, guest, .. } = &self.names;
        while !self.is_over() {
            for step in [
                Change::Put(swapped, &folders[STABLE + 1]),
                Change::Remove(guest),
                Change::Put(swapped, &folders[STABLE + 2]),
                Change::Put(guest, &folders[STABLE]),
            ] {
                let outcome = match change(&self.http, step).await {
                    Ok(()) => Outcome::Answered,
                    Err(failure) => failed(&failure),
                };
                self.with_tally(|tally| tally.count("changes of adapters", outcome));
                sleep(BETWEEN_CHANGES).await;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn with_tally<T>(&self, f: impl FnOnce(&mut Tally) -> T) -> T {
        f(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks, counts what comes of it, and returns the status of a refusal.
    async fn ask(&self, ask: &Ask) -> Option<u16> {
        let outcome = match ask.due {
            Due::HungUp(hang_up) => self.hang_up(ask, hang_up).await,
            _ => self.outcome(ask).await,
        };
        let status = match outcome {
            Outcome::Refused(status) => Some(status),
            _ => None,
        };
        self.with_tally(|tally| tally.count(ask.kind, outcome));
        status
    }

    async fn outcome(&self, ask: &Ask) -> Outcome {
        let answer = async {
            let mut parts = self.http.post(ask.path, ask.body.clone()).await?;
            Answer::read(&mut parts, ask.stream).await
        };
        match (answer.await, ask.due) {
            (Err(Failure::Status(status, _)), Due::Error(due)) if status == due => Outcome::Refused(status),
            (Ok(_), Due::Error(due)) => Outcome::Wrong(format!("answered instead of {due}: {}", ask.body)),
            (Err(failure), _) => self.refused(ask, failure),
            (Ok(answer), Due::Known(family, prompt)) => self.judge(ask, family, prompt, &answer),
            (Ok(_), _) => Outcome::Answered,
        }
    }

    /// An error is fine where the server is full, or where the adapter is away just now.
    fn refused(&self, ask: &Ask, failure: Failure) -> Outcome {
        match failure {
            Failure::Status(429, _) => Outcome::Refused(429),
            Failure::Status(status @ (404 | 410), _) if ask.model == self.names.guest => {
                Outcome::Refused(status)
            }
            other => failed(&other),
        }
    }

    /// Whether it is what the same maker answered at the start, and the maker one that the name
    /// stands for.
    fn judge(&self, ask: &Ask, family: GreedyRequest, prompt: usize, answer: &Answer) -> Outcome {
        let makers = self.makers.get(&ask.model).map_or(&[][..], Vec::as_slice);
        let maker = match &answer.fingerprint {
            Some(maker) => makers.contains(maker).then_some(maker),
            // TGI's answers do not say; only names that stay the same are asked in that dialect.
            None => makers.first(),
        };
        let Some(maker) = maker else {
            return Outcome::Wrong(format!(
                "{:?} answers under the name {}",
                answer.fingerprint, ask.model
            ));
        };
        match self.known.get(&(family, prompt, maker.clone())) {
            Some(known) if *known == answer.text => Outcome::Answered,
            known => Outcome::Wrong(format!(
                "{} says {:?} instead of {known:?}",
                ask.model, answer.text
            )),
        }
    }

    async fn hang_up(&self, ask: &Ask, hang_up: HangUp) -> Outcome {
        let (patience, most) = match hang_up {
            HangUp::Early(milliseconds) => (Duration::from_millis(milliseconds), usize::MAX),
            HangUp::After(parts) => (Duration::MAX, parts),
        };
        let read = async {
            let mut parts = self.http.post(ask.path, ask.body.clone()).await?;
            for _ in 0..most {
                if parts.next().await?.is_none() {
                    break;
                }
            }
            Ok(())
        };
        match timeout(patience, read).await {
            Ok(Err(failure)) => self.refused(ask, failure),
            Ok(Ok(())) | Err(_) => Outcome::HungUp,
        }
    }
}

/// Why something failed: by an error, or without one.
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

async fn change(http: &Client, change: Change<'_>) -> Result<(), Failure> {
    let (path, body) = match change {
        Change::Put(name, source) => (
            "/v1/adapters",
            json!({"name": name, "source": source, "replace": true}),
        ),
        Change::Remove(name) => ("/unload_lora_adapter", json!({"lora_name": name})),
    };
    let mut parts = http.post(path, body.to_string()).await?;
    while parts.next().await?.is_some() {}
    Ok(())
}
