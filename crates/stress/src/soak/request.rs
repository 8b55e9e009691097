//! The requests of the traffic: good and bad ones, in every dialect.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::harness::expected::{GreedyRequest, PROMPTS};

/// Words of random prompts.
const WORDS: [&str; 8] = [
    "river", "copper", "seven", "slowly", "window", "winter", "under", "orange",
];
/// When a client disconnects.
#[derive(Clone, Copy, Debug)]
pub(super) enum HangUp {
    /// So many milliseconds after it sent the request.
    Early(u64),
    /// After so many parts of the answer.
    After(usize),
}

/// The outcome that is expected of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// The first answer of the same adapter to this prompt.
    Greedy(GreedyRequest, usize),
    /// Any answer.
    Any,
    /// An error with this status.
    Error(u16),
    /// Nothing: the client disconnects.
    HungUp(HangUp),
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Its row in the table.
    pub kind: &'static str,
    pub path: &'static str,
    pub body: String,
    pub is_stream: bool,
    pub model: String,
    pub expected: Expected,
}

/// The names of models that requests use.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The base and the adapters that do not change.
    pub stable: Vec<String>,
    /// An adapter that is replaced all the time.
    pub swapped: String,
    /// An adapter that is added and removed all the time.
    pub guest: String,
}

impl Request {
    /// A greedy request with one of the prompts.
    pub(super) fn greedy(family: GreedyRequest, model: &str, prompt: usize, is_stream: bool) -> Self {
        Self {
            kind: family.name(is_stream),
            path: family.path(is_stream),
            body: family.body(model, prompt, is_stream).to_string(),
            is_stream,
            model: model.to_owned(),
            expected: Expected::Greedy(family, prompt),
        }
    }

    /// A random request; most are good.
    pub(super) fn random(random: &mut ChaCha8Rng, names: &Names) -> Self {
        let prompt = random.random_range(0..PROMPTS.len());
        let stable = &names.stable[random.random_range(0..names.stable.len())];
        let is_stream = random.random();
        match random.random_range(0..100) {
            0..60 => {
                let family = GreedyRequest::ALL[random.random_range(0..GreedyRequest::ALL.len())];
                Self::greedy(family, stable, prompt, is_stream)
            }
            60..68 => Self {
                kind: "to an adapter that is replaced",
                ..Self::greedy(GreedyRequest::Completion, &names.swapped, prompt, is_stream)
            },
            68..76 => Self {
                kind: "to an adapter that is added and removed",
                ..Self::greedy(GreedyRequest::Completion, &names.guest, prompt, is_stream)
            },
            76..84 => Self::hung_up(random, stable),
            84..92 => Self::bad(random, stable),
            _ => Self::sampled(random, stable, is_stream),
        }
    }

    /// All greedy requests of some kinds, not streamed. Later answers are compared with theirs.
    pub(super) fn all(model: &str, families: &[GreedyRequest]) -> Vec<Self> {
        let of = |family: &GreedyRequest| {
            let family = *family;
            (0..PROMPTS.len()).map(move |prompt| Self::greedy(family, model, prompt, false))
        };
        families.iter().flat_map(of).collect()
    }

    fn hung_up(random: &mut ChaCha8Rng, model: &str) -> Self {
        let hang_up = match random.random() {
            true => HangUp::Early(random.random_range(0..200)),
            false => HangUp::After(random.random_range(0..8)),
        };
        let body = json!({"model": model, "prompt": new_prompt(random), "max_tokens": 400, "ignore_eos": true, "stream": true});
        Self {
            kind: "clients that hang up",
            path: "/v1/completions",
            body: body.to_string(),
            is_stream: true,
            model: model.to_owned(),
            expected: Expected::HungUp(hang_up),
        }
    }

    fn sampled(random: &mut ChaCha8Rng, model: &str, is_stream: bool) -> Self {
        let body = json!({"model": model, "prompt": new_prompt(random), "max_tokens": random.random_range(1..64),
            "n": random.random_range(1..4), "temperature": 1, "stream": is_stream});
        Self {
            kind: "sampled, of new prompts",
            path: "/v1/completions",
            body: body.to_string(),
            is_stream,
            model: model.to_owned(),
            expected: Expected::Any,
        }
    }

    fn bad(random: &mut ChaCha8Rng, model: &str) -> Self {
        let chat = |field: &str, value: Value| {
            let mut body = GreedyRequest::Chat.body(model, 0, false);
            body[field] = value;
            body.to_string()
        };
        let (path, body, status) = match random.random_range(0..11) {
            0 => ("/v1/chat/completions", "{".to_owned(), 400),
            1 => ("/v1/chat/completions", "[".repeat(300), 400),
            2 => (
                "/v1/chat/completions",
                chat("model", json!("no-such-adapter")),
                404,
            ),
            3 => ("/v1/chat/completions", chat("temperature", json!(-1)), 400),
            4 => (
                "/v1/chat/completions",
                chat("max_tokens", json!(1_u64 << 60)),
                400,
            ),
            5 => ("/v1/chat/completions", chat("no_such_field", json!(1)), 400),
            6 => {
                let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}});
                ("/v1/chat/completions", chat("response_format", format), 400)
            }
            7 => ("/v1/completions", json!({"model": model}).to_string(), 400),
            8 => {
                let body = json!({"inputs": "x", "parameters": {"top_p": 1.5}});
                ("/generate_stream", body.to_string(), 422)
            }
            9 => ("/no/such/route", "{}".to_owned(), 404),
            _ => {
                let body = json!({"name": "stranger", "source": "/not/allowed"});
                ("/v1/adapters", body.to_string(), 403)
            }
        };
        Self {
            kind: "bad requests",
            path,
            body,
            is_stream: false,
            model: model.to_owned(),
            expected: Expected::Error(status),
        }
    }
}

/// A prompt that most likely was not used before.
fn new_prompt(random: &mut ChaCha8Rng) -> String {
    let count = random.random_range(4..100);
    let words = (0..count).map(|_| WORDS[random.random_range(0..WORDS.len())]);
    words.collect::<Vec<_>>().join(" ")
}
