//! What is asked: requests in every dialect, good ones and bad ones.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::harness::expected::{GreedyRequest, PROMPTS};

/// A seed of theirs makes no two random prompts alike.
const WORDS: [&str; 8] = [
    "river", "copper", "seven", "slowly", "window", "winter", "under", "orange",
];
/// When a client hangs up.
#[derive(Clone, Copy, Debug)]
pub(super) enum HangUp {
    /// So many milliseconds after it asked, whatever has come.
    Early(u64),
    /// After so many parts of the answer.
    After(usize),
}

/// What may come of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// What the same adapter answered at the start.
    Known(GreedyRequest, usize),
    /// An answer, whatever it says.
    Any,
    /// An error of this status.
    Error(u16),
    /// Nothing: the client does not wait.
    HungUp(HangUp),
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// What the table calls it.
    pub kind: &'static str,
    pub path: &'static str,
    pub body: String,
    pub stream: bool,
    pub model: String,
    pub due: Due,
}

/// Whom to ask.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The base and adapters that stay as they are.
    pub stable: Vec<String>,
    /// A name whose adapter is replaced all the time.
    pub swapped: String,
    /// A name that is added and removed all the time.
    pub guest: String,
}

impl Ask {
    /// A request of a family for one of its prompts.
    pub(super) fn known(family: GreedyRequest, model: &str, prompt: usize, stream: bool) -> Self {
        Self {
            kind: family.name(stream),
            path: family.path(stream),
            body: family.body(model, prompt, stream).to_string(),
            stream,
            model: model.to_owned(),
            due: Due::Known(family, prompt),
        }
    }

    /// Any request, good ones more often.
    pub(super) fn random(random: &mut ChaCha8Rng, names: &Names) -> Self {
        let prompt = random.random_range(0..PROMPTS.len());
        let stable = &names.stable[random.random_range(0..names.stable.len())];
        let stream = random.random();
        match random.random_range(0..100) {
            0..60 => {
                let family = GreedyRequest::ALL[random.random_range(0..GreedyRequest::ALL.len())];
                Self::known(family, stable, prompt, stream)
            }
            60..68 => Self {
                kind: "of an adapter that is swapped",
                ..Self::known(GreedyRequest::Completion, &names.swapped, prompt, stream)
            },
            68..76 => Self {
                kind: "of an adapter that comes and goes",
                ..Self::known(GreedyRequest::Completion, &names.guest, prompt, stream)
            },
            76..84 => Self::hung_up(random, stable),
            84..92 => Self::bad(random, stable),
            _ => Self::sampled(random, stable, stream),
        }
    }

    /// Every prompt, whole and alone: what these answer is what all later ones are held to.
    pub(super) fn all(model: &str, families: &[GreedyRequest]) -> Vec<Self> {
        let of = |family: &GreedyRequest| {
            let family = *family;
            (0..PROMPTS.len()).map(move |prompt| Self::known(family, model, prompt, false))
        };
        families.iter().flat_map(of).collect()
    }

    fn hung_up(random: &mut ChaCha8Rng, model: &str) -> Self {
        let hang_up = match random.random() {
            true => HangUp::Early(random.random_range(0..200)),
            false => HangUp::After(random.random_range(0..8)),
        };
        let body = json!({"model": model, "prompt": words(random), "max_tokens": 400, "ignore_eos": true, "stream": true});
        Self {
            kind: "clients that hang up",
            path: "/v1/completions",
            body: body.to_string(),
            stream: true,
            model: model.to_owned(),
            due: Due::HungUp(hang_up),
        }
    }

    fn sampled(random: &mut ChaCha8Rng, model: &str, stream: bool) -> Self {
        let body = json!({"model": model, "prompt": words(random), "max_tokens": random.random_range(1..64),
            "n": random.random_range(1..4), "temperature": 1, "stream": stream});
        Self {
            kind: "sampled, of new prompts",
            path: "/v1/completions",
            body: body.to_string(),
            stream,
            model: model.to_owned(),
            due: Due::Any,
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
            stream: false,
            model: model.to_owned(),
            due: Due::Error(status),
        }
    }
}

/// A prompt that was most likely never asked before.
fn words(random: &mut ChaCha8Rng) -> String {
    let count = random.random_range(4..100);
    let words = (0..count).map(|_| WORDS[random.random_range(0..WORDS.len())]);
    words.collect::<Vec<_>>().join(" ")
}
