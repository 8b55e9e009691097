//! `multigraft bench malformed`: requests that are wrong in every way, and whether a server minds.
//!
//! ```text
//! start ─ known answers ─ thousands to warm up ─ rest ─ N malformed requests ─ rest ─ the same answers? the two rests compared
//!                                                        └ a good request every second
//! ```
//!
//! - [`routes`]: what the server's own description of itself says can be asked, and good bodies for
//!   it
//! - [`families`]: the ways to be wrong, with what [`mutate`] makes of JSON
//! - [`send`]: a [`case`] over a socket of its own; [`answers`] finds what came back

mod answers;
mod case;
mod families;
mod findings;
mod mutate;
mod routes;
mod send;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use multigraft_access::{Grants, KeyLimits, NewKey, Role, Store};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::arguments::{Malformation, MalformedArguments};
use crate::harness::adapters::{RandomAdapters, Targets};
use crate::harness::answer::Answer;
use crate::harness::expected::{GreedyRequest, PROMPTS};
use crate::harness::idle::{self, IdleState};
use crate::harness::server::{Product, ServerProcess, post};
use answers::shown;
use case::{Case, Known, Step};
use findings::Tally;
use multigraft_loadgen::client::Client;
use multigraft_loadgen::output::print;
use multigraft_loadgen::record::Failure;
use send::Outcome;

/// Requests at once, apart from the slow ones.
const AT_ONCE: usize = 64;
/// Clients at once that hold their connections for long.
const SLOW_AT_ONCE: usize = 128;
/// Requests before the figures that later ones are held to: a tenth of all, within these.
const WARM_UP: std::ops::RangeInclusive<u64> = 200..=5_000;
/// The name of the adapter that good requests ask.
const STEADY: &str = "steady";
/// The longest sequence, or the model's own if that is less: no request that happens to be good
/// takes long.
const CONTEXT: usize = 512;
/// Prompts of half a context that are more than the memory for keys and values holds, and the first
/// of their tokens.
const FILLING: usize = 6;
const FIRST_TOKEN: usize = 40;
/// One whole context has to fit.
const KV_MEMORY: &str = "16MiB";
const BETWEEN_GOOD: Duration = Duration::from_secs(1);
const BETWEEN_NEWS: Duration = Duration::from_secs(30);
/// Resident memory may always grow by this much, which is two hundredths of what a small model
/// takes.
const SLACK: u64 = 4 << 20;

/// A good request, and what is answered to it.
struct Good {
    path: &'static str,
    body: String,
    text: String,
}

/// What the traffic works with.
struct Malformed {
    http: Client,
    address: SocketAddr,
    /// The longest sequence.
    context: usize,
    known: Known,
    good: Vec<Good>,
    tally: Mutex<Tally>,
    is_over: AtomicBool,
}

/// Which requests are sent.
#[derive(Clone, Debug)]
struct Numbers {
    seed: u64,
    numbers: std::ops::Range<u64>,
    only: Vec<Malformation>,
}

impl Numbers {
    /// The family and the case of a number, which depend on nothing else.
    fn case(&self, number: u64, known: &Known) -> (Malformation, Case) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(number);
        let family = families::any(&mut random, &self.only);
        (family, families::case(family, &mut random, known))
    }

    /// What is typed to send a number again.
    fn again(&self, number: u64) -> String {
        let only: Vec<String> = self.only.iter().copied().map(findings::name).collect();
        let only = match only.is_empty() {
            true => String::new(),
            false => format!(" --only {}", only.join(",")),
        };
        format!("--seed {} --index {number}{only}", self.seed)
    }
}

pub(crate) fn run(arguments: &MalformedArguments) -> Result<ExitCode> {
    ensure!(arguments.requests > 0, "--requests is 0, but must be 1 or more");
    let product = Product::find(&arguments.product)?;
    let config = product.config()?;
    let dir = tempfile::Builder::new().prefix("multigraft-malformed-").tempdir();
    let dir = dir.context("a folder for adapters")?;
    let maker = RandomAdapters {
        config: &config,
        rank: 8,
        targets: Targets::QueryValue,
    };
    let adapters = dir.path().join("adapters");
    let folders = maker.write_all(&adapters, 2)?;
    let context = CONTEXT.min(config.context);
    let (data, allowed) = (dir.path().join("data"), adapters.display().to_string());
    // Without one, a request that makes the first would close the server to all others.
    let (_, key) = Store::open(&data)?.add(&NewKey {
        name: "bench".to_owned(),
        role: Role::Admin,
        tenant: None,
        grants: Grants::all(),
        limits: KeyLimits::default(),
        expires: None,
    })?;
    let server = product.start([
        "--data",
        &data.display().to_string(),
        "--allow-source",
        &allowed,
        "--allow-source",
        "upload",
        "--context",
        &context.to_string(),
        "--default-max-tokens",
        "4",
        "--kv-memory",
        KV_MEMORY,
        "--adapter-memory",
        "64MiB",
        "--max-running",
        "16",
    ])?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(malformed(
        arguments,
        server,
        key.reveal().to_owned(),
        &folders,
        context,
    ))
}

async fn malformed(
    arguments: &MalformedArguments,
    mut server: ServerProcess,
    key: String,
    folders: &[PathBuf],
    context: usize,
) -> Result<ExitCode> {
    let malformed = Malformed::new(&server, key, folders, context).await?;
    let mut numbers = Numbers {
        seed: arguments.seed,
        numbers: 0..arguments.requests,
        only: arguments.only.clone(),
    };
    if let Some(number) = arguments.index {
        return malformed.show(&numbers, number).await;
    }
    tracing::info!(
        "{} routes, {} answers are known",
        malformed.known.routes.len(),
        malformed.good.len()
    );
    let malformed = Arc::new(malformed);
    // The numbers after those that are counted, so that these are the same whatever warmed it up.
    let warm_up = (arguments.requests / 10).clamp(*WARM_UP.start(), *WARM_UP.end());
    let counted = std::mem::replace(
        &mut numbers.numbers,
        arguments.requests..arguments.requests + warm_up,
    );
    malformed.fill().await?;
    malformed.traffic(&numbers, &server).await?;
    malformed.tidy().await?;
    let before = IdleState::wait(&server, &malformed.http).await?;
    let warmed = std::mem::take(&mut *malformed.tally.lock().unwrap_or_else(PoisonError::into_inner));

    numbers.numbers = counted;
    let begin = Instant::now();
    malformed.traffic(&numbers, &server).await?;
    let time = begin.elapsed();
    malformed.tidy().await?;
    let after = IdleState::wait(&server, &malformed.http).await?;
    for good in 0..malformed.good.len() {
        malformed.ask(good).await;
    }
    if !server.is_running()? {
        malformed.with_tally(|tally| tally.problem("the server has ended".to_owned()));
    }

    let (table, kept) = idle::compare(before, after, "after the warm-up", SLACK);
    let tally = malformed.tally.lock().unwrap_or_else(PoisonError::into_inner);
    print(&format!(
        "seed {}, {:.0} s\n{}\nstatuses: {}\n\n{table}",
        numbers.seed,
        time.as_secs_f64(),
        tally.table(),
        tally.statuses()
    ))?;
    for line in warmed.told().iter().chain(tally.told()) {
        print(&format!("{line}\n"))?;
    }
    let is_good = warmed.is_good() && tally.is_good() && kept;
    print(if is_good {
        "the server does not mind\n"
    } else {
        "THE SERVER MINDS\n"
    })?;
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Malformed {
    /// Adds the adapter, reads the routes, sends a file, and asks everything that is good once.
    async fn new(server: &ServerProcess, key: String, folders: &[PathBuf], context: usize) -> Result<Self> {
        let http = server.client()?.with_key(&key)?;
        let adapter = json!({"name": STEADY, "source": folders[0], "pinned": true});
        post(&http, "/v1/adapters", adapter).await?;
        let models = http.get("/v1/models").await?;
        let base = models["data"][0]["id"]
            .as_str()
            .context("the base's name")?
            .to_owned();
        let routes = routes::all(&http.get("/openapi.json").await?)?;
        let mut malformed = Self {
            address: server.address()?,
            context,
            known: Known {
                routes,
                key,
                models: [base, STEADY.to_owned()],
                source: folders[1].display().to_string(),
                file: String::new(),
            },
            http,
            good: Vec::new(),
            tally: Mutex::default(),
            is_over: AtomicBool::new(false),
        };
        malformed.known.file = malformed.send_file().await?;
        for model in &malformed.known.models {
            for family in GreedyRequest::ALL {
                for prompt in 0..PROMPTS.len() {
                    let (path, body) = (family.path(false), family.body(model, prompt, false).to_string());
                    let answer = answer(&malformed.http, path, &body)
                        .await
                        .map_err(anyhow::Error::msg)?;
                    malformed.good.push(Good {
                        path,
                        body,
                        text: answer.text,
                    });
                }
            }
        }
        let mut texts: Vec<&str> = malformed.good.iter().map(|good| good.text.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        ensure!(
            texts.len() > 1,
            "all good requests have the same answer: {texts:?}"
        );
        Ok(malformed)
    }

    /// Sends a file of lines for batches. Its id.
    async fn send_file(&self) -> Result<String> {
        let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/completions",
            "body": {"model": self.known.models[0], "prompt": "x", "max_tokens": 1}});
        let part = |name: &str, content: &str| {
            format!(
                "--b\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n{content}\r\n"
            )
        };
        let body = part("purpose", "batch") + &part("file", &line.to_string()) + "--b--\r\n";
        let kind = [("content-type", "multipart/form-data; boundary=b")];
        let request = self.known.request("POST", "/v1/files", &kind, body.as_bytes());
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(&request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the file's answer")?;
        let file: Value =
            serde_json::from_str(body).with_context(|| format!("the file's answer: {answer}"))?;
        Ok(file["id"]
            .as_str()
            .with_context(|| format!("the file's id: {answer}"))?
            .to_owned())
    }

    /// Sends all of them, many at once, until the last has ended; asks what is good meanwhile.
    async fn traffic(self: &Arc<Self>, numbers: &Numbers, server: &ServerProcess) -> Result<()> {
        self.is_over.store(false, Ordering::Relaxed);
        let good = tokio::spawn(Arc::clone(self).good_requests());
        let (places, slow_places) = (
            Arc::new(Semaphore::new(AT_ONCE)),
            Arc::new(Semaphore::new(SLOW_AT_ONCE)),
        );
        let mut tasks = JoinSet::new();
        let mut news = Instant::now();
        for number in numbers.numbers.clone() {
            let (family, case) = numbers.case(number, &self.known);
            let places = if case.is_slow() { &slow_places } else { &places };
            let place = Arc::clone(places).acquire_owned().await?;
            let (malformed, again) = (Arc::clone(self), numbers.again(number));
            tasks.spawn(async move {
                let outcome = send::play(&case, malformed.address).await;
                if let Some(problem) = &outcome.problem {
                    tracing::warn!("{again}: {problem}");
                }
                malformed.with_tally(|tally| tally.count(family, outcome, || again));
                drop(place);
            });
            while let Some(task) = tasks.try_join_next() {
                task?;
            }
            if news.elapsed() >= BETWEEN_NEWS {
                news = Instant::now();
                let sent = self.with_tally(|tally| tally.sent());
                tracing::info!(
                    "{sent} requests have ended, {} MiB resident",
                    server.resident()? >> 20
                );
            }
        }
        while let Some(task) = tasks.join_next().await {
            task?;
        }
        self.is_over.store(true, Ordering::Relaxed);
        Ok(good.await?)
    }

    async fn good_requests(self: Arc<Self>) {
        for good in (0..self.good.len()).cycle() {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            self.ask(good).await;
            sleep(BETWEEN_GOOD).await;
        }
    }

    /// Asks a good request and holds the answer to that of the start.
    async fn ask(&self, good: usize) {
        let Good { path, body, text } = &self.good[good];
        let problem = match answer(&self.http, path, body).await {
            Ok(answer) if answer.text == *text => return,
            Ok(answer) => format!("{:?} instead of {text:?}", answer.text),
            Err(failure) => failure.to_string(),
        };
        self.with_tally(|tally| tally.problem(format!("a good request to {path} ({body}): {problem}")));
    }

    /// Asks for more different long prompts than there is memory for, and how likely the tokens of
    /// one were, so that keys and values and what a step computes take all that they may from the
    /// start.
    async fn fill(&self) -> Result<()> {
        let long = |first_token| {
            let prompt = vec![first_token; self.context / 2];
            json!({"model": self.known.models[0], "prompt": prompt, "max_tokens": 1})
        };
        let mut scored = long(FIRST_TOKEN);
        scored["echo"] = json!(true);
        scored["logprobs"] = json!(1);
        let plain = (1..=FILLING).map(|prompt| long(FIRST_TOKEN + prompt));
        for body in plain.chain([scored]) {
            post(&self.http, "/v1/completions", body).await?;
        }
        Ok(())
    }

    /// Removes what requests that happened to be good have added, so that it is not taken for what
    /// was lost.
    async fn tidy(&self) -> Result<()> {
        let adapters = self.http.get("/v1/adapters").await?;
        for adapter in adapters["data"].as_array().context("a list of adapters")? {
            if adapter["name"] != STEADY {
                post(
                    &self.http,
                    "/unload_lora_adapter",
                    json!({"lora_name": adapter["name"]}),
                )
                .await?;
            }
        }
        Ok(())
    }

    /// Sends one request and shows it, and what comes of it.
    async fn show(&self, numbers: &Numbers, number: u64) -> Result<ExitCode> {
        let (family, case) = numbers.case(number, &self.known);
        print(&format!("{}, {:?} is due\n", findings::name(family), case.due))?;
        for step in &case.steps {
            let step = match step {
                Step::Send(bytes) => format!("sends {} bytes: {}", bytes.len(), shown(bytes)),
                Step::Drip(bytes, every) => format!(
                    "sends {} bytes, one every {every:?}: {}",
                    bytes.len(),
                    shown(bytes)
                ),
                other => format!("{other:?}"),
            };
            print(&format!("{step}\n"))?;
        }
        let Outcome {
            statuses,
            is_closed,
            problem,
        } = send::play(&case, self.address).await;
        let closed = if is_closed {
            ", closed without an answer"
        } else {
            ""
        };
        print(&format!("statuses: {statuses:?}{closed}\n"))?;
        Ok(match problem {
            None => ExitCode::SUCCESS,
            Some(problem) => {
                print(&format!("problem: {problem}\n"))?;
                ExitCode::FAILURE
            }
        })
    }

    fn with_tally<T>(&self, f: impl FnOnce(&mut Tally) -> T) -> T {
        f(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn answer(http: &Client, path: &str, body: &str) -> Result<Answer, Failure> {
    let mut parts = http.post(path, body.to_owned()).await?;
    Answer::read(&mut parts, false).await
}
