//! `multigraft adapters`: the adapters of a running server, over its HTTP API.

use std::{
    io::{self, Write as _},
    path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use comfy_table::{Table, presets};
use multigraft_adapters::AdapterLimits;
use multigraft_peft::gguf_file;
use multigraft_sources::Reference;
use multigraft_text::TEMPLATE_FILES;
use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tokio::runtime;

use crate::{
    cli::{AdaptersAction, AdaptersArguments},
    memory::Bytes,
    progress::Progress,
};

/// How long a connection may take to come about. Answers take as long as loading does.
const CONNECT: Duration = Duration::from_secs(5);

/// What answers that tell of changes as they happen are called.
const EVENTS: &str = "text/event-stream";

/// What is sent of a PEFT adapter's folder, beside the files that its chat template may be in.
const UPLOADED: [&str; 4] = [
    "adapter_config.json",
    "adapter_model.safetensors",
    "README.md",
    "reference.json",
];

/// Digits of a hash that people are shown.
const DIGITS: usize = 12;

pub(crate) fn run(arguments: &AdaptersArguments) -> Result<ExitCode> {
    // What TLS is made of; a second time it changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server {
        client: Client::builder().connect_timeout(CONNECT).build()?,
        key: arguments.api_key.clone(),
        url: arguments.server.clone(),
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(act(&server, &arguments.action))
}

async fn act(server: &Server, action: &AdaptersAction) -> Result<ExitCode> {
    match action {
        AdaptersAction::Ls { json } => {
            let listed = server.send(Method::GET, &[], None).await?;
            match json {
                true => say(&serde_json::to_string_pretty(&listed)?)?,
                false => say(&table(&listed))?,
            }
        }
        AdaptersAction::Add {
            adapter,
            replace,
            pin,
        } => {
            // The server was started elsewhere.
            let source = match &adapter.at {
                Reference::Folder(folder) => path::absolute(folder)?.display().to_string(),
                at => at.to_string(),
            };
            let mut body = json!({"name": adapter.name, "source": source, "replace": replace});
            if *pin {
                body["pinned"] = true.into();
            }
            let added = server.add(&adapter.name, &body).await?;
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
                    "`{}` is not on this machine; `multigraft adapters add` has the server fetch it",
                    adapter.at
                );
            };
            let added = server.upload(&adapter.name, path, *replace, *pin).await?;
            say(&format!("`{}` is served: {}", adapter.name, summary(&added)))?;
            warn(&added)?;
        }
        AdaptersAction::Rm { name, now } => {
            server.remove(name, *now).await?;
            let under_way = match now {
                true => "were ended",
                false => "end as they would have",
            };
            say(&format!("`{name}` is removed; requests under way {under_way}"))?;
        }
        AdaptersAction::Pin { name, off } => {
            server
                .send(Method::PATCH, &[name], Some(json!({"pinned": !off})))
                .await?;
            let what = if *off {
                "may make room for others"
            } else {
                "stays in memory once it is there"
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
            let body = json!({"limits": limits});
            server.send(Method::PATCH, &[name], Some(body)).await?;
            say(&format!("`{name}` {}", allowed(limits)))?;
        }
        AdaptersAction::Rollback { name, to } => {
            let active = to.as_deref().unwrap_or("previous");
            let hash = match active {
                "previous" => active.to_owned(),
                start => server.hash(name, start).await?,
            };
            let changed = server
                .send(Method::PATCH, &[name], Some(json!({"active": hash})))
                .await?;
            say(&format!("`{name}` is {} from now on", summary(&changed)))?;
        }
        AdaptersAction::Verify { names } => return verify(server, names).await,
    }
    Ok(ExitCode::SUCCESS)
}

/// Has each adapter answer a request, and shows what its self test found. Status 1 if one fails.
async fn verify(server: &Server, names: &[String]) -> Result<ExitCode> {
    let names = match names.is_empty() {
        false => names.to_vec(),
        true => {
            let listed = server.send(Method::GET, &[], None).await?;
            let all = listed["data"].as_array().into_iter().flatten();
            all.filter_map(|adapter| adapter["name"].as_str().map(str::to_owned))
                .collect()
        }
    };
    let mut failed = 0;
    for name in names {
        let verdict = match server.ask(&name).await {
            Ok(()) => {
                let adapter = server.send(Method::GET, &[&name], None).await?;
                let warnings = adapter["info"]["warnings"].as_array();
                let warnings: Vec<String> = warnings.into_iter().flatten().filter_map(text).collect();
                match warnings.is_empty() {
                    true => Ok(summary(&adapter)),
                    false => Err(warnings.join("; ")),
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
    /// Asks `/v1/adapters` or what `path` leads to below it.
    async fn send(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<Value> {
        let url = self.at(&[&["v1", "adapters"], path].concat())?;
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.answer(request).await
    }

    /// Adds an adapter, with a bar that shows how much of it the server has fetched.
    async fn add(&self, name: &str, body: &Value) -> Result<Value> {
        let url = self.at(&["v1", "adapters"])?;
        let request = self.client.post(url).json(body);
        let mut response = self.sent(request.header(ACCEPT, EVENTS)).await?;
        let is_stream = |value: &HeaderValue| value.as_bytes().starts_with(EVENTS.as_bytes());
        if !response.headers().get(CONTENT_TYPE).is_some_and(is_stream) {
            return answer(response).await;
        }
        let progress = Progress::new("adapter");
        let mut arrived = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            arrived.extend(bytes);
            while let Some(end) = arrived.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = arrived.drain(..end + 2).collect();
                let (kind, data) = parts(&String::from_utf8_lossy(&event));
                match kind.as_str() {
                    "added" => {
                        progress.finish();
                        return Ok(data);
                    }
                    "error" => {
                        progress.finish();
                        bail!(text(&data["error"]["message"]).unwrap_or_else(|| data.to_string()));
                    }
                    _ => {
                        if let (Some(done), Some(total)) =
                            (data["bytes_done"].as_u64(), data["bytes_total"].as_u64())
                        {
                            progress.file(name, done, total);
                        }
                    }
                }
            }
        }
        bail!(
            "the server went away before `{name}` was added; `multigraft adapters ls` shows what became of it"
        )
    }

    /// Sends the files of the adapter at `path`: PEFT's, or the one of llama.cpp's format.
    async fn upload(&self, name: &str, path: &path::Path, replace: bool, pin: bool) -> Result<Value> {
        let mut files = Vec::new();
        let there = |name: &str| Some(path.join(name)).filter(|file| file.is_file());
        match gguf_file(path)? {
            Some(file) => files.push(file),
            None => files.extend(UPLOADED.into_iter().filter_map(there)),
        }
        files.extend(TEMPLATE_FILES.into_iter().filter_map(there));
        if files.is_empty() {
            bail!("`{}` holds no adapter", path.display());
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

    /// Removes an adapter, with its requests or without.
    async fn remove(&self, name: &str, now: bool) -> Result<Value> {
        let mut url = self.at(&["v1", "adapters", name])?;
        if now {
            url.query_pairs_mut().append_pair("now", "true");
        }
        self.answer(self.client.delete(url)).await
    }

    /// Has the model `name` answer with one token.
    async fn ask(&self, name: &str) -> Result<()> {
        let url = self.at(&["v1", "completions"])?;
        let body = json!({"model": name, "prompt": "Hello", "max_tokens": 1, "temperature": 0});
        self.answer(self.client.post(url).json(&body)).await.map(|_| ())
    }

    /// The hash of a version of `name` that begins with `start`.
    async fn hash(&self, name: &str, start: &str) -> Result<String> {
        let adapter = self.send(Method::GET, &[name], None).await?;
        let versions = adapter["versions"].as_array().into_iter().flatten();
        let mut hashes: Vec<String> = versions.filter_map(|version| text(&version["hash"])).collect();
        hashes.retain(|hash| hash.starts_with(start));
        match hashes.as_slice() {
            [one] => Ok(one.clone()),
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
                "`{}` is no address of a server, such as http://127.0.0.1:8080",
                self.url
            );
        };
        segments.pop_if_empty().extend(path);
        drop(segments);
        Ok(url)
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        answer(self.sent(request).await?).await
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

/// What an answer says, or the error that it is.
async fn answer(response: Response) -> Result<Value> {
    let status = response.status();
    if status == StatusCode::NO_CONTENT {
        return Ok(Value::Null);
    }
    let body: Value = response.json().await.map_err(reqwest::Error::without_url)?;
    match status.is_success() {
        true => Ok(body),
        false => Err(anyhow!(
            text(&body["error"]["message"]).unwrap_or_else(|| format!("{status}: {body}"))
        )),
    }
}

/// The kind of a server-sent event and its data; of comments, nothing.
fn parts(event: &str) -> (String, Value) {
    let field = |name: &str| {
        event
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let kind = field("event").unwrap_or_default().trim().to_owned();
    let data = field("data").and_then(|data| serde_json::from_str(data).ok());
    (kind, data.unwrap_or_default())
}

fn table(listed: &Value) -> String {
    let adapters = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    if adapters.is_empty() {
        return "no adapters are served".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "name", "state", "rank", "memory", "moved", "pinned", "requests", "versions", "hash", "added by",
        "source",
    ]);
    for adapter in adapters {
        let state = match (adapter["state"].as_str(), adapter["replacing"].as_bool()) {
            (Some(state), Some(true)) => format!("{state}, replacing"),
            (state, _) => state.unwrap_or("?").to_owned(),
        };
        table.add_row([
            text(&adapter["name"]).unwrap_or_default(),
            state,
            rank(adapter),
            adapter["bytes"]
                .as_u64()
                .map_or_else(String::new, |bytes| Bytes(bytes).to_string()),
            moved(adapter).unwrap_or_default(),
            if adapter["pinned"] == true {
                "yes".to_owned()
            } else {
                String::new()
            },
            adapter["requests"].to_string(),
            adapter["versions"].as_array().map_or(0, Vec::len).to_string(),
            short(&adapter["hash"]),
            text(&adapter["added_by"]).unwrap_or_default(),
            text(&adapter["source"]).unwrap_or_default(),
        ]);
    }
    let memory = &listed["memory"];
    let used = Bytes(memory["bytes"].as_u64().unwrap_or(0));
    let limit = memory["limit"]
        .as_u64()
        .map_or_else(String::new, |limit| format!(" of {}", Bytes(limit)));
    let failed = adapters.iter().filter_map(|adapter| {
        let error = text(&adapter["error"])?;
        Some(format!("\n{}: {error}", text(&adapter["name"])?))
    });
    format!("{table}\n\nmemory {used}{limit}{}", failed.collect::<String>())
}

/// An adapter in a few words.
fn summary(adapter: &Value) -> String {
    let mut parts = vec![format!("version {}", short(&adapter["hash"]))];
    let known = [
        ("rank", Some(rank(adapter))),
        ("moves the logits by", moved(adapter)),
    ];
    for (what, value) in known {
        parts.extend(
            value
                .filter(|value| !value.is_empty())
                .map(|value| format!("{what} {value}")),
        );
    }
    let reference = &adapter["info"]["effect"]["reference"];
    if let (Some(agree), Some(of)) = (reference["agree"].as_u64(), reference["of"].as_u64()) {
        parts.push(format!("{agree} of {of} tokens of its reference"));
    }
    parts.join(", ")
}

/// What limits allow, as the rest of a sentence.
fn allowed(limits: AdapterLimits) -> String {
    let bounds = [
        ("requests a minute", limits.requests_per_minute),
        ("tokens a minute", limits.tokens_per_minute),
        ("requests at once", limits.concurrent_requests),
    ];
    let bounds: Vec<String> = bounds
        .into_iter()
        .filter_map(|(what, most)| most.map(|most| format!("{most} {what}")))
        .collect();
    let bounds = match bounds.is_empty() {
        true => "any number of requests".to_owned(),
        false => bounds.join(", "),
    };
    let shared = match limits.shared_prefixes {
        true => "; tenants share its prefixes",
        false => "",
    };
    format!("has the weight {} and may have {bounds}{shared}", limits.weight)
}

fn warn(adapter: &Value) -> Result<()> {
    let warnings = adapter["info"]["warnings"].as_array();
    for warning in warnings.into_iter().flatten().filter_map(text) {
        say(&format!("warning: {warning}"))?;
    }
    Ok(())
}

fn rank(adapter: &Value) -> String {
    let ranks = &adapter["info"]["ranks"];
    match (ranks[0].as_u64(), ranks[1].as_u64()) {
        (Some(least), Some(most)) if least == most => least.to_string(),
        (Some(least), Some(most)) => format!("{least}-{most}"),
        _ => String::new(),
    }
}

fn moved(adapter: &Value) -> Option<String> {
    let moved = adapter["info"]["effect"]["moved"].as_f64()?;
    Some(format!("{:.1} %", 100.0 * moved))
}

fn short(hash: &Value) -> String {
    hash.as_str()
        .map_or_else(|| "-".to_owned(), |hash| hash.chars().take(DIGITS).collect())
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn say(line: &str) -> Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}
