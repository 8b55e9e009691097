//! Asking the server over HTTP, as any client would.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use ureq::Agent;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(300);

/// One answer.
pub(crate) struct Answer {
    pub(crate) text: String,
    /// What made it: program and content hash of the adapter.
    pub(crate) fingerprint: String,
    pub(crate) tokens: u32,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
    usage: Usage,
    system_fingerprint: Option<String>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: u32,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

/// A line of `/v1/models`.
#[derive(Deserialize)]
pub(crate) struct Model {
    /// The name that requests use.
    pub(crate) id: String,
    /// For an adapter, its base.
    #[serde(default)]
    pub(crate) parent: Option<String>,
}

/// A client for a server on this machine: no proxy, whatever the environment says, and no answer
/// later than `timeout`.
pub(crate) fn agent(timeout: Duration) -> Agent {
    Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(timeout))
        .build()
        .into()
}

/// What the server serves: the base and the adapters.
pub(crate) fn models(url: &str) -> Result<Vec<Model>> {
    let mut response = agent(TIMEOUT)
        .get(format!("{url}/v1/models"))
        .call()
        .context("cannot list the models")?;
    Ok(response
        .body_mut()
        .read_json::<Models>()
        .context("cannot understand the list of models")?
        .data)
}

/// Asks one model one question; the likeliest token is taken at every step, up to `max_tokens`.
pub(crate) fn ask(url: &str, model: &str, prompt: &str, max_tokens: u32) -> Result<Answer> {
    let body = json!({
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
    });
    let mut response = agent(TIMEOUT)
        .post(format!("{url}/v1/chat/completions"))
        .config()
        .http_status_as_error(false)
        .build()
        .send_json(body)
        .with_context(|| format!("cannot ask {model}"))?;
    if !response.status().is_success() {
        let status = response.status();
        bail!(
            "{model} answers {status}: {}",
            response.body_mut().read_to_string()?
        );
    }
    let completion: Completion = response
        .body_mut()
        .read_json()
        .with_context(|| format!("cannot understand the answer of {model}"))?;
    let choice = completion
        .choices
        .into_iter()
        .next()
        .context("an answer without choices")?;
    Ok(Answer {
        text: choice.message.content.unwrap_or_default(),
        fingerprint: completion.system_fingerprint.unwrap_or_default(),
        tokens: completion.usage.completion_tokens,
    })
}
