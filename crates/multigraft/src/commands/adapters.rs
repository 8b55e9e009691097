//! `multigraft adapters`: the adapters of a running server, over its HTTP API.

use std::{
    io::{self, Write as _},
    path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use comfy_table::{Table, presets};
use multigraft_adapters::ADAPTER_FILES;
use multigraft_api::{
    Adapter, AdapterEvent, AdapterLimits, Adapters, AddAdapter, AddedBy, ChangeAdapter, Effect, ErrorBody,
    sse::Events,
};
use multigraft_peft::gguf_file;
use multigraft_sources::Reference;
use multigraft_text::TEMPLATE_FILES;
use reqwest::{
    Client, Response, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
    multipart::{Form, Part},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime;

use crate::{
    cli::{AdaptersAction, AdaptersArguments},
    memory::Bytes,
    progress::Progress,
};

/// How long connecting may take. Answers have no time limit, because loading takes long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The media type of answers that report progress.
const EVENTS: &str = "text/event-stream";

/// The error of an answer that cannot be read.
const UNKNOWN_FORM: &str = "the answer of the server cannot be read: is it another version of multigraft?";

/// Digits of a hash that are shown.
const DIGITS: usize = 12;

pub(crate) fn run(arguments: &AdaptersArguments) -> Result<ExitCode> {
    // The cryptography of TLS. A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server {
        client: Client::builder().connect_timeout(CONNECT_TIMEOUT).build()?,
        key: arguments.api_key.clone(),
        url: arguments.server.clone(),
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(act(&server, &arguments.action))
}

async fn act(server: &Server, action: &AdaptersAction) -> Result<ExitCode> {
    match action {
        AdaptersAction::Ls { json } => match json {
            true => {
                let listed: Value = server.get(&[]).await?;
                say(&serde_json::to_string_pretty(&listed)?)?;
            }
            false => say(&table(&server.get(&[]).await?))?,
        },
        AdaptersAction::Add {
            adapter,
            replace,
            pin,
        } => {
            // The server has another working directory.
            let source = match &adapter.at {
                Reference::Folder(folder) => path::absolute(folder)?.display().to_string(),
                at => at.to_string(),
            };
            let addition = AddAdapter {
                name: adapter.name.clone(),
                source,
                replace: *replace,
                pinned: pin.then_some(true),
                defaults: None,
                limits: None,
            };
            let added = server.add(&addition).await?;
            say(&format!("`{}` is served: {}", adapter.name, summary(&added)))?;
            warn(&added)?;
        }
        AdaptersAction::Upload {
            adapter,
            replace,
            pin,
        } => {
            let Reference::Folder(path) = &adapter.at else {
                bail!(
                    "`{}` is not on this machine; let the server fetch it with `multigraft adapters add`",
                    adapter.at
                );
            };
            let added = server.upload(&adapter.name, path, *replace, *pin).await?;
            say(&format!("`{}` is served: {}", adapter.name, summary(&added)))?;
            warn(&added)?;
        }
        AdaptersAction::Rm { name, now } => {
            server.remove(name, *now).await?;
            let requests = match now {
                true => "running requests were ended",
                false => "running requests are completed",
            };
            say(&format!("`{name}` is removed; {requests}"))?;
        }
        AdaptersAction::Pin { name, off } => {
            let change = ChangeAdapter {
                pinned: Some(!off),
                ..ChangeAdapter::default()
            };
            server.change(name, &change).await?;
            let what = if *off {
                "is no longer pinned and may be evicted"
            } else {
                "is pinned and stays in memory once it is loaded"
            };
            say(&format!("`{name}` {what}"))?;
        }
        AdaptersAction::Limit {
            name,
            weight,
            requests_per_minute,
            tokens_per_minute,
            concurrent_requests,
            shared_prefixes,
        } => {
            let limits = AdapterLimits {
                weight: *weight,
                requests_per_minute: *requests_per_minute,
                tokens_per_minute: *tokens_per_minute,
                concurrent_requests: *concurrent_requests,
                shared_prefixes: *shared_prefixes,
            };
            let change = ChangeAdapter {
                limits: Some(limits),
                ..ChangeAdapter::default()
            };
            server.change(name, &change).await?;
            say(&format!("`{name}` {}", allowed(limits)))?;
        }
        AdaptersAction::Rollback { name, to } => {
            let active = to.as_deref().unwrap_or("previous");
            let hash = match active {
                "previous" => active.to_owned(),
                start => server.hash(name, start).await?,
            };
            let change = ChangeAdapter {
                active: Some(hash),
                ..ChangeAdapter::default()
            };
            let changed = server.change(name, &change).await?;
            say(&format!("`{name}` is now {}", summary(&changed)))?;
        }
        AdaptersAction::Verify { names } => return verify(server, names).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends each adapter a request, and shows the result of its self test. Status 1 if one fails.
async fn verify(server: &Server, names: &[String]) -> Result<ExitCode> {
    let names = match names.is_empty() {
        false => names.to_vec(),
        true => {
            let listed: Adapters = server.get(&[]).await?;
            listed.data.into_iter().map(|adapter| adapter.name).collect()
        }
    };
    let mut failed = 0;
    for name in names {
        let verdict = match server.complete(&name).await {
            Ok(()) => {
                let adapter: Adapter = server.get(&[&name]).await?;
                match warnings(&adapter) {
                    [] => Ok(summary(&adapter)),
                    warnings => Err(warnings.join("; ")),
                }
            }
            Err(error) => Err(format!("{error:#}")),
        };
        failed += usize::from(verdict.is_err());
        match verdict {
            Ok(summary) => say(&format!("ok    {name}: {summary}"))?,
            Err(problem) => say(&format!("fails {name}: {problem}"))?,
        }
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// A running server.
struct Server {
    client: Client,
    key: Option<String>,
    url: Url,
}

impl Server {
    /// Reads `/v1/adapters`, or `path` below it.
    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T> {
        let url = self.at(&[&["v1", "adapters"], path].concat())?;
        self.answer(self.client.get(url)).await
    }

    /// Changes an adapter.
    async fn change(&self, name: &str, change: &ChangeAdapter) -> Result<Adapter> {
        let url = self.at(&["v1", "adapters", name])?;
        self.answer(self.client.patch(url).json(change)).await
    }

    /// Adds an adapter. A progress bar shows how much of it the server has fetched.
    async fn add(&self, addition: &AddAdapter) -> Result<Adapter> {
        let url = self.at(&["v1", "adapters"])?;
        let request = self.client.post(url).json(addition);
        let mut response = self.sent(request.header(ACCEPT, EVENTS)).await?;
        let is_stream = |value: &HeaderValue| value.as_bytes().starts_with(EVENTS.as_bytes());
        if !response.headers().get(CONTENT_TYPE).is_some_and(is_stream) {
            return read(response).await;
        }
        let progress = Progress::new("adapter");
        let mut events = Events::default();
        while let Some(bytes) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            events.push(&bytes);
            while let Some(event) = events.next_event() {
                match event.kind {
                    b"added" => {
                        progress.finish();
                        return serde_json::from_slice(event.data).context(UNKNOWN_FORM);
                    }
                    b"error" => {
                        progress.finish();
                        bail!(message(event.data));
                    }
                    _ => {
                        if let Ok(AdapterEvent {
                            bytes_done: Some(done),
                            bytes_total: Some(total),
                            ..
                        }) = serde_json::from_slice(event.data)
                        {
                            progress.file(&addition.name, done, total);
                        }
                    }
                }
            }
        }
        bail!(
            "the server went away before `{}` was added; `multigraft adapters ls` shows what became of it",
            addition.name
        )
    }

    /// Uploads the adapter at `path`: the files of a PEFT folder, or llama.cpp's file.
    async fn upload(&self, name: &str, path: &path::Path, replace: bool, pin: bool) -> Result<Adapter> {
        let mut files = Vec::new();
        let existing = |name: &str| Some(path.join(name)).filter(|file| file.is_file());
        match gguf_file(path)? {
            Some(file) => {
                files.push(file);
                files.extend(TEMPLATE_FILES.into_iter().filter_map(existing));
            }
            None => files.extend(ADAPTER_FILES.files.iter().filter_map(|file| existing(file.name))),
        }
        if files.is_empty() {
            bail!("`{}` contains no adapter", path.display());
        }
        let mut form = Form::new();
        for file in files {
            let part = Part::file(&file).await;
            form = form.part("file", part.with_context(|| format!("`{}`", file.display()))?);
        }
        let mut url = self.at(&["v1", "adapters", name, "upload"])?;
        url.query_pairs_mut()
            .append_pair("replace", if replace { "true" } else { "false" });
        if pin {
            url.query_pairs_mut().append_pair("pinned", "true");
        }
        self.answer(self.client.post(url).multipart(form)).await
    }

    /// Removes an adapter. `now` ends its requests too.
    async fn remove(&self, name: &str, now: bool) -> Result<()> {
        let mut url = self.at(&["v1", "adapters", name])?;
        if now {
            url.query_pairs_mut().append_pair("now", "true");
        }
        self.finish(self.client.delete(url)).await
    }

    /// Has the model `name` generate one token.
    async fn complete(&self, name: &str) -> Result<()> {
        let url = self.at(&["v1", "completions"])?;
        let body = json!({"model": name, "prompt": "Hello", "max_tokens": 1, "temperature": 0});
        self.finish(self.client.post(url).json(&body)).await
    }

    /// The hash of a version of `name` that begins with `start`.
    async fn hash(&self, name: &str, start: &str) -> Result<String> {
        let adapter: Adapter = self.get(&[name]).await?;
        let versions = adapter.versions.into_iter();
        let mut hashes: Vec<String> = versions.filter_map(|version| version.hash).collect();
        hashes.retain(|hash| hash.starts_with(start));
        match hashes.as_slice() {
            [hash] => Ok(hash.clone()),
            [] => bail!(
                "`{name}` has no version whose hash begins with {start}; `multigraft adapters ls --json` shows them"
            ),
            _ => bail!(
                "`{name}` has {} versions whose hashes begin with {start}: give more digits",
                hashes.len()
            ),
        }
    }

    fn at(&self, path: &[&str]) -> Result<Url> {
        let mut url = self.url.clone();
        let Ok(mut segments) = url.path_segments_mut() else {
            bail!(
                "`{}` is no server address; write it like http://127.0.0.1:8080",
                self.url
            );
        };
        segments.pop_if_empty().extend(path);
        drop(segments);
        Ok(url)
    }

    /// Sends a request whose answer says nothing more than that it succeeded.
    async fn finish(&self, request: reqwest::RequestBuilder) -> Result<()> {
        let body = succeeded(self.sent(request).await?).await?.bytes().await;
        body.map_err(reqwest::Error::without_url)?;
        Ok(())
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<T> {
        read(self.sent(request).await?).await
    }

    async fn sent(&self, request: reqwest::RequestBuilder) -> Result<Response> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let response = request.send().await.map_err(reqwest::Error::without_url);
        response.with_context(|| {
            format!(
                "no server answers at {}: start one with `multigraft serve`, or name another with --server",
                self.url
            )
        })
    }
}

/// The error of an answer that is no success; the answer otherwise.
async fn succeeded(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.map_err(reqwest::Error::without_url)?;
    match serde_json::from_slice(&body) {
        Ok(ErrorBody { error }) => Err(anyhow!(error.message)),
        Err(_) => Err(anyhow!("{status}: {}", String::from_utf8_lossy(&body))),
    }
}

/// The body of a successful answer.
async fn read<T: DeserializeOwned>(response: Response) -> Result<T> {
    let body = succeeded(response).await?.bytes().await;
    let body = body.map_err(reqwest::Error::without_url)?;
    serde_json::from_slice(&body).context(UNKNOWN_FORM)
}

/// The message of an event `error`.
fn message(data: &[u8]) -> String {
    match serde_json::from_slice(data) {
        Ok(ErrorBody { error }) => error.message,
        Err(_) => String::from_utf8_lossy(data).into_owned(),
    }
}

fn table(listed: &Adapters) -> String {
    if listed.data.is_empty() {
        return "no adapters are served".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "name", "state", "rank", "memory", "moved", "pinned", "requests", "versions", "hash", "added by",
        "source",
    ]);
    for adapter in &listed.data {
        let state = adapter.state.as_str();
        let bytes = |bytes| Bytes(bytes).to_string();
        table.add_row([
            adapter.name.clone(),
            match adapter.replacing {
                true => format!("{state}, replacing"),
                false => state.to_owned(),
            },
            rank(adapter),
            adapter.bytes.map_or_else(String::new, bytes),
            moved(adapter).unwrap_or_default(),
            String::from(if adapter.pinned { "yes" } else { "" }),
            adapter
                .requests
                .map_or_else(|| "null".to_owned(), |requests| requests.to_string()),
            adapter.versions.len().to_string(),
            short(adapter.hash.as_deref()),
            adapter.added_by.map_or("", AddedBy::as_str).to_owned(),
            adapter.source.clone().unwrap_or_default(),
        ]);
    }
    let used = Bytes(listed.memory.bytes);
    let limit = listed.memory.limit;
    let limit = limit.map_or_else(String::new, |limit| format!(" of {}", Bytes(limit)));
    let failed = listed.data.iter().filter_map(|adapter| {
        let error = adapter.error.as_ref()?;
        Some(format!("\n{}: {error}", adapter.name))
    });
    format!("{table}\n\nmemory {used}{limit}{}", failed.collect::<String>())
}

/// An adapter's version, rank and effect in one line.
fn summary(adapter: &Adapter) -> String {
    let mut parts = vec![format!("version {}", short(adapter.hash.as_deref()))];
    let facts = [
        ("rank", Some(rank(adapter))),
        ("changes the logits by", moved(adapter)),
    ];
    for (what, value) in facts {
        parts.extend(
            value
                .filter(|value| !value.is_empty())
                .map(|value| format!("{what} {value}")),
        );
    }
    if let Some(reference) = effect(adapter).and_then(|effect| effect.reference) {
        parts.push(format!(
            "{} of {} tokens of its reference",
            reference.agree, reference.of
        ));
    }
    parts.join(", ")
}

/// The limits as text.
fn allowed(limits: AdapterLimits) -> String {
    let bounds = [
        ("requests per minute", limits.requests_per_minute),
        ("tokens per minute", limits.tokens_per_minute),
        ("requests at once", limits.concurrent_requests),
    ];
    let bounds: Vec<String> = bounds
        .into_iter()
        .filter_map(|(what, most)| most.map(|most| format!("{most} {what}")))
        .collect();
    let bounds = match bounds.is_empty() {
        true => "no limits".to_owned(),
        false => bounds.join(", "),
    };
    let shared = match limits.shared_prefixes {
        true => "; tenants share its prefix cache",
        false => "",
    };
    format!("now has the weight {} and {bounds}{shared}", limits.weight)
}

fn warn(adapter: &Adapter) -> Result<()> {
    for warning in warnings(adapter) {
        say(&format!("warning: {warning}"))?;
    }
    Ok(())
}

fn warnings(adapter: &Adapter) -> &[String] {
    adapter.info.as_ref().map_or(&[], |info| &info.warnings)
}

fn rank(adapter: &Adapter) -> String {
    match adapter.info.as_ref().and_then(|info| info.ranks) {
        Some((least, most)) if least == most => least.to_string(),
        Some((least, most)) => format!("{least}-{most}"),
        None => String::new(),
    }
}

fn effect(adapter: &Adapter) -> Option<Effect> {
    adapter.info.as_ref()?.effect
}

fn moved(adapter: &Adapter) -> Option<String> {
    let moved = f64::from(effect(adapter)?.moved);
    Some(format!("{:.1} %", 100.0 * moved))
}

fn short(hash: Option<&str>) -> String {
    hash.map_or_else(|| "-".to_owned(), |hash| hash.chars().take(DIGITS).collect())
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}
