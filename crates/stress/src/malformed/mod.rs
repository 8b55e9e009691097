//! `multigraft-stress malformed`: requests that are wrong in every way. None may disturb the
//! server.
//!
//! ```text
//! start ─ greedy answers ─ warm-up ─ idle ─ N malformed requests ─ idle, compared ─ same answers
//!                                            └ a good request every second
//! ```
//!
//! - [`routes`]: the routes of the server's OpenAPI document, and valid bodies for them
//! - [`families`]: the ways to be malformed; [`mutate`] changes JSON bodies
//! - [`send`]: runs a [`case`] on a connection of its own; [`answers`] parses what comes back
//! - [`findings`]: counts and problems

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
use answers::excerpt;
use case::{Case, Step};
use findings::Findings;
use multigraft_loadgen::client::Client;
use multigraft_loadgen::output::print;
use multigraft_loadgen::record::Failure;
use routes::ServerFacts;
use send::Outcome;

/// Requests that run at once, not counting the slow ones.
const AT_ONCE: usize = 64;
/// Slow requests that run at once.
const SLOW_AT_ONCE: usize = 128;
/// Requests that warm up the server before its resources are measured: a tenth of all, within these
/// limits.
const WARM_UP: std::ops::RangeInclusive<u64> = 200..=5_000;
/// The name of the adapter that good requests use.
const STEADY: &str = "steady";
/// The longest sequence, unless the model's context is shorter: requests that happen to be valid
/// must not take long.
const CONTEXT: usize = 512;
/// Prompts of half a context each that together take more than the KV cache.
const FILLING_PROMPTS: usize = 6;
/// The first token of these prompts.
const FIRST_TOKEN: usize = 40;
/// The KV cache: one whole context has to fit.
const KV_MEMORY: &str = "16MiB";
const GOOD_INTERVAL: Duration = Duration::from_secs(1);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// Growth of resident memory that is always allowed: 2 % of what a server of a small model takes.
const SLACK: u64 = 4 << 20;

/// A greedy request and its answer.
struct GoodRequest {
    path: &'static str,
    body: String,
    text: String,
}

/// The state of a run.
struct Malformed {
    client: Client,
    address: SocketAddr,
    /// The longest sequence, in tokens.
    context: usize,
    facts: ServerFacts,
    good: Vec<GoodRequest>,
    findings: Mutex<Findings>,
    is_over: AtomicBool,
}

/// Which malformed requests are sent.
#[derive(Clone, Debug)]
struct Numbers {
    seed: u64,
    numbers: std::ops::Range<u64>,
    only: Vec<Malformation>,
}

impl Numbers {
    /// The family and the case of a number. They depend only on the number, the seed and `only`.
    fn case(&self, number: u64, facts: &ServerFacts) -> (Malformation, Case) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(number);
        let family = families::draw(&mut random, &self.only);
        (family, families::case(family, &mut random, facts))
    }

    /// The arguments that send the request with this number again.
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
    let adapters_of_base = RandomAdapters {
        config: &config,
        rank: 8,
        targets: Targets::QueryValue,
    };
    let adapters = dir.path().join("adapters");
    let folders = adapters_of_base.write_all(&adapters, 2)?;
    let context = CONTEXT.min(config.context);
    let (data, allowed) = (dir.path().join("data"), adapters.display().to_string());
    // Without a key, a request that adds the first one would make the server refuse all others.
    let (_, key) = Store::open(&data)?.add(&NewKey {
        name: "stress".to_owned(),
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
        "{} routes, {} greedy answers",
        malformed.facts.routes.len(),
        malformed.good.len()
    );
    let malformed = Arc::new(malformed);
    // Numbers after those that are counted: the counted ones are the same whatever warms up the
    // server.
    let warm_up = (arguments.requests / 10).clamp(*WARM_UP.start(), *WARM_UP.end());
    let counted = std::mem::replace(
        &mut numbers.numbers,
        arguments.requests..arguments.requests + warm_up,
    );
    malformed.fill().await?;
    malformed.traffic(&numbers, &server).await?;
    malformed.remove_guests().await?;
    let before = IdleState::wait(&server, &malformed.client).await?;
    let warmed = std::mem::take(&mut *malformed.findings.lock().unwrap_or_else(PoisonError::into_inner));

    numbers.numbers = counted;
    let begin = Instant::now();
    malformed.traffic(&numbers, &server).await?;
    let time = begin.elapsed();
    malformed.remove_guests().await?;
    let after = IdleState::wait(&server, &malformed.client).await?;
    for good in 0..malformed.good.len() {
        malformed.check_good(good).await;
    }
    if !server.is_running()? {
        malformed.with_findings(|findings| findings.problem("the server has ended".to_owned()));
    }

    let (table, kept) = idle::compare(before, after, "after the warm-up", SLACK);
    let findings = malformed.findings.lock().unwrap_or_else(PoisonError::into_inner);
    print(&format!(
        "seed {}, {:.0} s\n{}\nstatuses: {}\n\n{table}",
        numbers.seed,
        time.as_secs_f64(),
        findings.table(),
        findings.statuses()
    ))?;
    for line in warmed.examples().iter().chain(findings.examples()) {
        print(&format!("{line}\n"))?;
    }
    let is_clean = warmed.is_clean() && findings.is_clean() && kept;
    print(if is_clean {
        "everything holds\n"
    } else {
        "SOMETHING DOES NOT HOLD\n"
    })?;
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Malformed {
    /// Adds the adapter, reads the routes, uploads a file of batches, and sends every good request
    /// once.
    async fn new(server: &ServerProcess, key: String, folders: &[PathBuf], context: usize) -> Result<Self> {
        let client = server.client()?.with_key(&key)?;
        let adapter = json!({"name": STEADY, "source": folders[0], "pinned": true});
        post(&client, "/v1/adapters", adapter).await?;
        let models = client.get("/v1/models").await?;
        let base = models["data"][0]["id"]
            .as_str()
            .context("the base's name")?
            .to_owned();
        let routes = routes::all(&client.get("/openapi.json").await?)?;
        let mut malformed = Self {
            address: server.address()?,
            context,
            facts: ServerFacts {
                routes,
                key,
                models: [base, STEADY.to_owned()],
                source: folders[1].display().to_string(),
                file: String::new(),
            },
            client,
            good: Vec::new(),
            findings: Mutex::default(),
            is_over: AtomicBool::new(false),
        };
        malformed.facts.file = malformed.upload_file().await?;
        for model in &malformed.facts.models {
            for family in GreedyRequest::ALL {
                for prompt in 0..PROMPTS.len() {
                    let (path, body) = (family.path(false), family.body(model, prompt, false).to_string());
                    let answer = answer(&malformed.client, path, &body)
                        .await
                        .map_err(anyhow::Error::msg)?;
                    malformed.good.push(GoodRequest {
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

    /// Uploads an input file of batches. Returns its id.
    async fn upload_file(&self) -> Result<String> {
        let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/completions",
            "body": {"model": self.facts.models[0], "prompt": "x", "max_tokens": 1}});
        let part = |name: &str, content: &str| {
            format!(
                "--b\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"x\"\r\n\r\n{content}\r\n"
            )
        };
        let body = part("purpose", "batch") + &part("file", &line.to_string()) + "--b--\r\n";
        let kind = [("content-type", "multipart/form-data; boundary=b")];
        let request = self.facts.request("POST", "/v1/files", &kind, body.as_bytes());
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

    /// Sends all malformed requests, many at once, until the last has ended, and good ones
    /// meanwhile.
    async fn traffic(self: &Arc<Self>, numbers: &Numbers, server: &ServerProcess) -> Result<()> {
        self.is_over.store(false, Ordering::Relaxed);
        let good = tokio::spawn(Arc::clone(self).good_requests());
        let (permits, slow_permits) = (
            Arc::new(Semaphore::new(AT_ONCE)),
            Arc::new(Semaphore::new(SLOW_AT_ONCE)),
        );
        let mut tasks = JoinSet::new();
        let mut last_progress = Instant::now();
        for number in numbers.numbers.clone() {
            let (family, case) = numbers.case(number, &self.facts);
            let permits = if case.is_slow() { &slow_permits } else { &permits };
            let permit = Arc::clone(permits).acquire_owned().await?;
            let (malformed, again) = (Arc::clone(self), numbers.again(number));
            tasks.spawn(async move {
                let outcome = send::run(&case, malformed.address).await;
                if let Some(problem) = &outcome.problem {
                    tracing::warn!("{again}: {problem}");
                }
                malformed.with_findings(|findings| findings.count(family, outcome, || again));
                drop(permit);
            });
            while let Some(task) = tasks.try_join_next() {
                task?;
            }
            if last_progress.elapsed() >= PROGRESS_INTERVAL {
                last_progress = Instant::now();
                let sent = self.with_findings(|findings| findings.sent());
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
            self.check_good(good).await;
            sleep(GOOD_INTERVAL).await;
        }
    }

    /// Sends a good request and compares its answer with the first one.
    async fn check_good(&self, good: usize) {
        let GoodRequest { path, body, text } = &self.good[good];
        let problem = match answer(&self.client, path, body).await {
            Ok(answer) if answer.text == *text => return,
            Ok(answer) => format!("{:?} instead of {text:?}", answer.text),
            Err(failure) => failure.to_string(),
        };
        self.with_findings(|findings| {
            findings.problem(format!("a good request to {path} ({body}): {problem}"))
        });
    }

    /// Sends more different long prompts than the KV cache holds, and asks for the
    /// log-probabilities of one, so that the KV cache and the buffers of a step have their full
    /// size from the start.
    async fn fill(&self) -> Result<()> {
        let long = |first_token| {
            let prompt = vec![first_token; self.context / 2];
            json!({"model": self.facts.models[0], "prompt": prompt, "max_tokens": 1})
        };
        let mut scored = long(FIRST_TOKEN);
        scored["echo"] = json!(true);
        scored["logprobs"] = json!(1);
        let plain = (1..=FILLING_PROMPTS).map(|prompt| long(FIRST_TOKEN + prompt));
        for body in plain.chain([scored]) {
            post(&self.client, "/v1/completions", body).await?;
        }
        Ok(())
    }

    /// Removes the adapters that valid requests have added: they must not count as lost memory.
    async fn remove_guests(&self) -> Result<()> {
        let adapters = self.client.get("/v1/adapters").await?;
        for adapter in adapters["data"].as_array().context("a list of adapters")? {
            if adapter["name"] != STEADY {
                post(
                    &self.client,
                    "/unload_lora_adapter",
                    json!({"lora_name": adapter["name"]}),
                )
                .await?;
            }
        }
        Ok(())
    }

    /// Sends one request, and shows it and its result.
    async fn show(&self, numbers: &Numbers, number: u64) -> Result<ExitCode> {
        let (family, case) = numbers.case(number, &self.facts);
        print(&format!(
            "{}, expected: {:?}\n",
            findings::name(family),
            case.expected
        ))?;
        for step in &case.steps {
            let step = match step {
                Step::Send(bytes) => format!("sends {} bytes: {}", bytes.len(), excerpt(bytes)),
                Step::Drip(bytes, every) => format!(
                    "sends {} bytes, one every {every:?}: {}",
                    bytes.len(),
                    excerpt(bytes)
                ),
                other => format!("{other:?}"),
            };
            print(&format!("{step}\n"))?;
        }
        let Outcome {
            statuses,
            is_closed,
            problem,
        } = send::run(&case, self.address).await;
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

    fn with_findings<T>(&self, f: impl FnOnce(&mut Findings) -> T) -> T {
        f(&mut self.findings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn answer(client: &Client, path: &str, body: &str) -> Result<Answer, Failure> {
    let mut answer = client.post(path, body.to_owned()).await?;
    Answer::read(&mut answer, false).await
}
