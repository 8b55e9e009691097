//! `cargo xtask demo`: one base model, all demo adapters, one mixed batch.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::chat::{self, Answer};
use crate::server::{self, Server};
use crate::shell::root;
use crate::table::{self, Row};
use crate::{cache, model};

/// The base never knows when to stop: this much shows what it is like.
const BASE_TOKENS: u32 = 40;
/// Enough for the adapters' longest answers, addresses as JSON.
const ADAPTER_TOKENS: u32 = 160;

/// A line of `demo/prompts.json`.
#[derive(Deserialize)]
struct Prompt {
    adapter: String,
    prompt: String,
    expected: Option<String>,
}

/// Runs the demo; returns when the server is stopped, or after the answers if `once`.
pub(crate) fn run(port: Option<u16>, once: bool) -> Result<()> {
    let demo = root().join("demo");
    let prompts = demo.join("prompts.json");
    let prompts: Vec<Prompt> = fs::read_to_string(&prompts)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_str(&text)?))
        .with_context(|| format!("cannot read {}", prompts.display()))?;

    eprintln!("1/3 the model");
    let base = model::fetch()?;
    eprintln!("2/3 the server (a release build takes a few minutes the first time)");
    let program = server::build("release")?;
    eprintln!("3/3 starting it");
    let log = cache::folder()?.join("demo-server.log");
    let mut server = Server::start(&program, &base, &demo.join("adapters"), port, log)?;

    let models = chat::models(&server.url)?;
    let base_name = models
        .iter()
        .find(|m| m.parent.is_none())
        .context("the server lists no base model")?
        .id
        .clone();
    println!(
        "\nServing {base_name} and {} adapters at {}\n",
        models.len() - 1,
        server.url
    );
    ask_all(&server.url, &base_name, &prompts)?;
    if once {
        return Ok(());
    }
    if let Some(prompt) = prompts.first() {
        print_next_steps(&server.url, prompt);
    }
    println!("The server's log is {}. Ctrl-C stops it.", short(&server.log));
    let status = server.wait()?;
    println!("The server ended with {status}.");
    Ok(())
}

/// Sends every prompt to the base and to its adapter, all at the same moment, and prints the
/// answers.
fn ask_all(url: &str, base_name: &str, prompts: &[Prompt]) -> Result<()> {
    let questions: Vec<(&str, &str, u32)> = prompts
        .iter()
        .flat_map(|p| {
            let prompt = p.prompt.as_str();
            [
                (base_name, prompt, BASE_TOKENS),
                (&p.adapter, prompt, ADAPTER_TOKENS),
            ]
        })
        .collect();
    let together = Barrier::new(questions.len());
    let begin = Instant::now();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let clients: Vec<_> = questions
            .iter()
            .map(|&(model, prompt, max_tokens)| {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    chat::ask(url, model, prompt, max_tokens)
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"))
            .collect::<Result<_>>()
    })?;
    let seconds = begin.elapsed().as_secs_f64();

    let rows: Vec<Row<'_>> = prompts
        .iter()
        .zip(answers.chunks_exact(2))
        .map(|(prompt, pair)| Row {
            prompt: &prompt.prompt,
            base: &pair[0].text,
            adapter: &pair[1].text,
            expected: prompt.expected.as_deref(),
            name: &prompt.adapter,
            fingerprint: &pair[1].fingerprint,
        })
        .collect();
    println!("{}", table::render(base_name, &rows));
    let judged: Vec<bool> = rows.iter().filter_map(Row::is_as_expected).collect();
    let right = judged.iter().filter(|&&right| right).count();
    let models: HashSet<&str> = questions.iter().map(|&(model, ..)| model).collect();
    let tokens: u32 = answers.iter().map(|answer| answer.tokens).sum();
    println!(
        "\n{} requests to {} models in one mixed batch: {tokens} tokens in {seconds:.1} s, {:.1} tokens/s.",
        questions.len(),
        models.len(),
        f64::from(tokens) / seconds,
    );
    println!(
        "The adapters gave {right} of {} expected answers (✓).\n",
        judged.len()
    );
    Ok(())
}

/// What to type next.
fn print_next_steps(url: &str, prompt: &Prompt) {
    let Prompt { adapter, prompt, .. } = prompt;
    let body = serde_json::json!({"model": adapter, "messages": [{"role": "user", "content": prompt}]});
    let quoted = serde_json::Value::from(prompt.as_str());
    println!("Try it with curl:\n");
    println!("  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\");
    println!("    -d '{}'\n", body.to_string().replace('\'', r"'\''"));
    println!("or with the OpenAI client (pip install openai):\n");
    println!("  from openai import OpenAI");
    println!("  client = OpenAI(base_url=\"{url}/v1\", api_key=\"none\")");
    println!("  answer = client.chat.completions.create(");
    println!("      model=\"{adapter}\", messages=[{{\"role\": \"user\", \"content\": {quoted}}}])");
    println!("  print(answer.choices[0].message.content)\n");
}

/// A path with `~` for the home folder.
fn short(path: &Path) -> String {
    let home = std::env::home_dir().and_then(|home| Some(path.strip_prefix(home).ok()?.to_owned()));
    home.map_or_else(
        || path.display().to_string(),
        |rest| format!("~/{}", rest.display()),
    )
}
