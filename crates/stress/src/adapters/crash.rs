//! Kills the server at a random moment of a change of adapters.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use multigraft_loadgen::client::Client;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::{Bench, Row};
use crate::harness::adapters::{RandomAdapters, Targets};
use crate::harness::server::{ServerProcess, add, post};

const NAMES: usize = 4;
const SOURCES: usize = 4;
/// The latest moment of the kill after a change was sent, in seconds: about the time that a change
/// takes.
const LATEST_KILL: f64 = 0.12;

/// The contents of the registry. Each name has the hashes of its versions, the index of the active
/// one, and whether it is pinned.
type State = BTreeMap<String, (Vec<String>, usize, bool)>;

pub(super) async fn measure(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let folder = bench.dir.join("crash");
    let adapters = RandomAdapters {
        config: &bench.config,
        rank: 8,
        targets: Targets::All,
    };
    let sources = adapters.write_all(&folder, SOURCES)?;
    let data = bench.dir.join("data").display().to_string();
    let allowed = folder.display().to_string();
    let start = || {
        bench
            .product
            .start(["--data", &data, "--allow-source", &allowed, "--preload", "off"])
    };
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let mut state = State::new();
    let hashes = hashes(start()?, &sources).await?;
    let (mut before, mut after) = (0, 0);
    for crash in 0..bench.arguments.crashes {
        let server = start()?;
        let found = read_state(&server).await?;
        ensure!(
            found == state,
            "before crash {crash} the registry was {found:?} instead of {state:?}"
        );
        let change = Change::random(&mut random, &state);
        let next = change.apply(&state, &hashes);
        let url = server.url.clone();
        let asked = tokio::spawn(change.send(server.client()?, sources.clone()));
        tokio::time::sleep(Duration::from_secs_f64(random.random_range(0.0..LATEST_KILL))).await;
        server.kill()?;
        let answered = asked.await?.is_ok();
        let server = start().with_context(|| format!("after crash {crash} of {url}"))?;
        let found = read_state(&server).await?;
        if found == next {
            after += 1;
        } else if found == state && !answered {
            before += 1;
        } else {
            bail!(
                "crash {crash}: the registry is {found:?}; it was {state:?} and was to be {next:?} (answered: {answered})"
            );
        }
        // Every adapter that is there can be used.
        let client = server.client()?;
        for name in found.keys() {
            let body = json!({"model": name, "prompt": "The", "max_tokens": 1});
            post(&client, "/v1/completions", body)
                .await
                .with_context(|| format!("after crash {crash}"))?;
        }
        server.kill()?;
        state = found;
    }
    Ok(vec![Row::new(
        format!(
            "kill -9 at a random point of a change, {} times: the state before it, after it, neither",
            bench.arguments.crashes
        ),
        format!("{before}, {after}, 0"),
        "neither: 0",
    )])
}

/// A change of the registry.
enum Change {
    Add { name: String, source: usize },
    Remove { name: String },
    Previous { name: String },
    Pin { name: String, pinned: bool },
}

impl Change {
    fn random(random: &mut ChaCha8Rng, state: &State) -> Self {
        let name = format!("n{}", random.random_range(0..NAMES));
        let known = state.get(&name);
        match random.random_range(0..10) {
            // A name must not have more versions than the server keeps.
            0..2 if known.is_some() => Self::Remove { name },
            _ if known.is_some_and(|(versions, ..)| versions.len() > 8) => Self::Remove { name },
            2..4 if known.is_some_and(|(_, active, _)| *active > 0) => Self::Previous { name },
            4 if known.is_some() => Self::Pin {
                name,
                pinned: random.random(),
            },
            _ => Self::Add {
                name,
                source: random.random_range(0..SOURCES),
            },
        }
    }

    /// The state after the change.
    fn apply(&self, state: &State, hashes: &[String]) -> State {
        let mut next = state.clone();
        match self {
            Self::Add { name, source } => {
                let (versions, active, _) = next.entry(name.clone()).or_default();
                let hash = &hashes[*source];
                if versions.get(*active) != Some(hash) {
                    versions.push(hash.clone());
                    *active = versions.len() - 1;
                }
            }
            Self::Remove { name } => {
                next.remove(name);
            }
            Self::Previous { name } => {
                if let Some((_, active, _)) = next.get_mut(name) {
                    *active -= 1;
                }
            }
            Self::Pin { name, pinned } => {
                if let Some((_, _, is_pinned)) = next.get_mut(name) {
                    *is_pinned = *pinned;
                }
            }
        }
        next
    }

    /// Sends the change to the server.
    async fn send(self, client: Client, sources: Vec<PathBuf>) -> Result<()> {
        match self {
            Self::Add { name, source } => {
                add(&client, &name, &sources[source]).await?;
            }
            Self::Remove { name } => {
                post(&client, "/unload_lora_adapter", json!({"lora_name": name})).await?;
            }
            Self::Previous { name } => patch(&client, &name, &json!({"active": "previous"})).await?,
            Self::Pin { name, pinned } => patch(&client, &name, &json!({"pinned": pinned})).await?,
        }
        Ok(())
    }
}

async fn patch(client: &Client, name: &str, body: &Value) -> Result<()> {
    let path = format!("/v1/adapters/{name}");
    let answer = async { client.patch(&path, body.to_string()).await?.collect().await };
    answer.await.map_err(anyhow::Error::msg)?;
    Ok(())
}

/// The hash of each source. Leaves the registry empty.
async fn hashes(server: ServerProcess, sources: &[PathBuf]) -> Result<Vec<String>> {
    let client = server.client()?;
    let mut hashes = Vec::new();
    for source in sources {
        let added = add(&client, "probe", source).await?;
        hashes.push(added["hash"].as_str().context("a hash")?.to_owned());
    }
    post(&client, "/unload_lora_adapter", json!({"lora_name": "probe"})).await?;
    server.kill()?;
    Ok(hashes)
}

async fn read_state(server: &ServerProcess) -> Result<State> {
    let listed = server.client()?.get("/v1/adapters").await?;
    let mut state = State::new();
    for adapter in listed["data"].as_array().context("a list of adapters")? {
        let name = adapter["name"].as_str().context("a name")?;
        let versions = adapter["versions"].as_array().context("versions")?;
        let hashes = versions
            .iter()
            .map(|version| version["hash"].as_str().map(str::to_owned));
        let active = versions.iter().position(|version| version["active"] == true);
        state.insert(
            name.to_owned(),
            (
                hashes.collect::<Option<Vec<_>>>().context("hashes")?,
                active.context("an active version")?,
                adapter["pinned"] == true,
            ),
        );
    }
    Ok(state)
}
