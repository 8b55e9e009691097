//! The second turn of a chat: the effect of the prefix cache.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::context::{Results, Tools};
use super::figures::median;
use super::load::serve;
use super::rows::{Figure, Rival, Unit};
use super::running::Running;
use super::subjects::Subject;
use crate::chat;

/// The length of the first turn, question and answer, in tokens.
const HISTORY: usize = 512;
/// The length of the answer, in tokens.
const ANSWER: usize = 32;
/// The length of the second question, in words.
const QUESTION: usize = 16;
/// Conversations per round and server.
const CONVERSATIONS: usize = 5;
/// The length, in words, of the question that measures how many tokens the server adds.
const PROBE: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(300);

/// Words that are one token each in nearly all vocabularies.
const WORDS: [&str; 32] = [
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school",
    "state", "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week",
    "company", "system", "program", "question", "work", "number", "night", "point", "home",
];

/// Runs the same conversations on a server with prefix cache and on one without.
pub(super) fn measure(tools: &Tools, results: &mut Results) -> Result<()> {
    let row = results.rows.announce(
        format!("second turn of a chat, {HISTORY} tokens of history: TTFT"),
        Unit::Milliseconds,
        Rival::itself("without prefix cache"),
        "5",
    );
    let model = tools.subjects.model(Subject::Q4_1)?;
    let start = |switch: &str| {
        let mut command = serve(tools, &model, None);
        command.args(["--prefix-cache", switch]);
        let running = Running::start(command, &tools.log(&format!("turns-{switch}")))?;
        Client::of(running)
    };
    let (with, without) = (start("on")?, start("off")?);
    let mut figure = Figure {
        command: "cargo xtask bench --only turns".to_owned(),
        ..Figure::default()
    };
    for round in 0..tools.rounds {
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for conversation in 0..CONVERSATIONS {
            let seed = round * CONVERSATIONS + conversation + 1;
            on.push(with.second_turn(seed)?);
            off.push(without.second_turn(seed)?);
        }
        results
            .reports
            .push(json!({"what": "turns", "ttft_ms": {"with_prefix_cache": on, "without": off}}));
        figure.ours.push(median(on));
        figure.theirs.push(median(off));
    }
    results.rows.fill(row, figure);
    Ok(())
}

/// A server, its base, and the tokens that it adds to questions.
struct Client {
    server: Running,
    base: String,
    /// The words of a first question that give the history its length.
    words: usize,
}

impl Client {
    fn of(server: Running) -> Result<Self> {
        let models = chat::models(&server.url)?;
        let base = models.into_iter().find(|model| model.parent.is_none());
        let mut client = Self {
            base: base.context("the server lists no base model")?.id,
            server,
            words: 0,
        };
        let probe = client.chat(&json!([{"role": "user", "content": words(PROBE, 0)}]), 1)?;
        let added = probe["usage"]["prompt_tokens"].as_u64();
        let added = usize::try_from(added.context("the server does not report the tokens of prompts")?)?
            .saturating_sub(PROBE);
        client.words = HISTORY - ANSWER - added;
        Ok(client)
    }

    /// Milliseconds until the answer to a second question begins. The answer has one token, so that
    /// it need not be streamed.
    fn second_turn(&self, seed: usize) -> Result<f64> {
        let mut messages = json!([{"role": "user", "content": words(self.words, 2 * seed)}]);
        let first = self.chat(&messages, ANSWER)?;
        let said = first["choices"][0]["message"].clone();
        let question = json!({"role": "user", "content": words(QUESTION, 2 * seed + 1)});
        messages
            .as_array_mut()
            .expect("a list of messages")
            .extend([said, question]);
        let begin = Instant::now();
        self.chat(&messages, 1)?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    fn chat(&self, messages: &Value, tokens: usize) -> Result<Value> {
        let body = json!({"model": self.base, "messages": messages, "max_tokens": tokens, "temperature": 0});
        let mut response = chat::agent(TIMEOUT)
            .post(format!("{}/v1/chat/completions", self.server.url))
            .send_json(body)
            .context("the server does not answer a chat")?;
        response
            .body_mut()
            .read_json()
            .context("the answer cannot be read")
    }
}

/// So many random words; every seed gives others.
fn words(count: usize, seed: usize) -> String {
    let mut random = seed as u32;
    let word = |_| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        WORDS[(random >> 8) as usize % WORDS.len()]
    };
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_do_not_begin_alike() {
        let beginnings: std::collections::BTreeSet<String> = (0..30).map(|seed| words(8, seed)).collect();
        assert_eq!(beginnings.len(), 30);
        assert_eq!(words(5, 1).split(' ').count(), 5);
    }
}
