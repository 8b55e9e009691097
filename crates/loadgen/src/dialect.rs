//! Request bodies and stream events of the APIs that the load generator speaks.

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, Visitor},
};
use serde_json::{Value, json};

use crate::{
    arguments::{AdapterList, DialectName, LoadArguments},
    client::Client,
    record::Failure,
};

/// One of the APIs, with the names that this server has for its base and adapters.
#[derive(Debug)]
pub enum Dialect {
    /// OpenAI's completions.
    Openai {
        /// The base's name.
        base: String,
        /// The names of the adapters that are requested.
        adapters: Vec<String>,
    },
    /// llama.cpp's `/completion`.
    LlamaCpp {
        /// The ids of all adapters that the server has.
        all: Vec<u64>,
        /// The ids of those that are requested.
        adapters: Vec<u64>,
    },
    /// `/generate_stream` of TGI and LoRAX.
    Tgi {
        /// The names of the adapters that are requested.
        adapters: Vec<String>,
    },
}

/// The content of one event of a stream.
#[derive(Debug, Default, PartialEq)]
pub struct EventContent {
    /// Whether it brings a token, or several at once.
    pub has_token: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: Option<usize>,
    /// Tokens of the answer so far.
    pub output_tokens: Option<usize>,
    /// Whether the answer is complete.
    pub is_end: bool,
}

impl Dialect {
    /// Asks the server for the names that the arguments leave open.
    ///
    /// # Errors
    /// If the server cannot be asked, or does not have the adapters that the arguments name.
    pub async fn resolve(client: &Client, arguments: &LoadArguments) -> Result<Self> {
        match arguments.dialect {
            DialectName::Openai => {
                let served = match (
                    &arguments.base_name,
                    &arguments.adapters,
                    &arguments.adapter_prefix,
                ) {
                    (Some(_), None | Some(AdapterList::Names(_)), _) | (Some(_), Some(_), Some(_)) => {
                        Vec::new()
                    }
                    _ => models(&client.get("/v1/models").await?),
                };
                let base = arguments.base_name.clone();
                let base = base.or_else(|| {
                    served
                        .iter()
                        .find(|(_, base)| *base)
                        .map(|(name, _)| name.clone())
                });
                let names = served.into_iter().filter(|(_, base)| !base).map(|(name, _)| name);
                Ok(Self::Openai {
                    base: base.context("the server lists no base model; name it with --base-name")?,
                    adapters: selected(arguments, names.collect())?,
                })
            }
            DialectName::LlamaCpp => {
                ensure!(
                    arguments.adapter_prefix.is_none(),
                    "llama.cpp's server knows adapters by id: leave --adapter-prefix out"
                );
                let listed = client.get("/lora-adapters").await?;
                let ids = listed.as_array().map(Vec::as_slice).unwrap_or_default();
                let all: Vec<u64> = ids.iter().filter_map(|adapter| adapter["id"].as_u64()).collect();
                let names = selected(arguments, all.iter().map(ToString::to_string).collect())?;
                let id = |name: &String| {
                    let id = name.parse().ok().filter(|id| all.contains(id));
                    id.with_context(|| format!("the server has no adapter `{name}`; it has the ids {all:?}"))
                };
                let adapters = names.iter().map(id).collect::<Result<_>>()?;
                Ok(Self::LlamaCpp { all, adapters })
            }
            DialectName::Tgi => {
                let names = match (&arguments.adapters, &arguments.adapter_prefix) {
                    (Some(AdapterList::Count(_)), None) => models(&client.get("/v1/models").await?),
                    _ => Vec::new(),
                };
                let names = names.into_iter().filter(|(_, base)| !base).map(|(name, _)| name);
                Ok(Self::Tgi {
                    adapters: selected(arguments, names.collect())?,
                })
            }
        }
    }

    /// How many adapters are requested; 0 means the base.
    #[must_use]
    pub fn adapters(&self) -> usize {
        match self {
            Self::Openai { adapters, .. } | Self::Tgi { adapters } => adapters.len(),
            Self::LlamaCpp { adapters, .. } => adapters.len(),
        }
    }

    /// The path that requests go to.
    #[must_use]
    pub fn path(&self) -> &'static str {
        match self {
            Self::Openai { .. } => "/v1/completions",
            Self::LlamaCpp { .. } => "/completion",
            Self::Tgi { .. } => "/generate_stream",
        }
    }

    /// The body of a request: greedy, streamed, with `output_tokens` tokens whatever they are.
    /// `adapter` is an index into the adapters that are requested; `None` is the base.
    #[must_use]
    pub fn body(&self, prompt: &str, adapter: Option<usize>, output_tokens: usize) -> String {
        let body = match self {
            Self::Openai { base, adapters } => json!({
                "model": adapter.map_or(base, |index| &adapters[index]),
                "prompt": prompt,
                "max_tokens": output_tokens,
                "temperature": 0,
                "ignore_eos": true,
                "stream": true,
                "stream_options": {"include_usage": true},
            }),
            Self::LlamaCpp { all, adapters } => {
                let requested = adapter.map(|index| adapters[index]);
                // Adapters that are not listed keep the scale that the server was started with.
                let scale =
                    |id: &u64| json!({"id": id, "scale": if requested == Some(*id) { 1.0 } else { 0.0 }});
                json!({
                    "prompt": prompt,
                    "n_predict": output_tokens,
                    "temperature": 0,
                    "ignore_eos": true,
                    "cache_prompt": false,
                    "stream": true,
                    "lora": all.iter().map(scale).collect::<Vec<_>>(),
                })
            }
            Self::Tgi { adapters } => json!({
                "inputs": prompt,
                "parameters": {
                    "adapter_id": adapter.map(|index| &adapters[index]),
                    "max_new_tokens": output_tokens,
                    "ignore_eos_token": true,
                    "details": true,
                },
            }),
        };
        body.to_string()
    }

    /// Parses the data of an event.
    ///
    /// # Errors
    /// If it is an error event, or not what the dialect sends.
    pub fn parse_event(&self, data: &[u8]) -> Result<EventContent, Failure> {
        if data == b"[DONE]" {
            return Ok(EventContent {
                is_end: true,
                ..EventContent::default()
            });
        }
        let event: Event = serde_json::from_slice(data)
            .map_err(|error| Failure::Broken(format!("an event cannot be read: {error}")))?;
        if let Some(error) = event.error {
            return Err(Failure::in_stream(&error));
        }
        Ok(match self {
            Self::Openai { .. } => EventContent {
                has_token: event
                    .choices
                    .iter()
                    .any(|c| c.text.0 || c.finish_reason.is_none()),
                prompt_tokens: event.usage.as_ref().map(|usage| usage.prompt_tokens),
                output_tokens: event.usage.as_ref().map(|usage| usage.completion_tokens),
                is_end: false,
            },
            Self::LlamaCpp { .. } => EventContent {
                has_token: event.content.0 || !event.stop,
                prompt_tokens: event.tokens_evaluated,
                output_tokens: event.tokens_predicted,
                is_end: event.stop,
            },
            Self::Tgi { .. } => {
                let details = event.details.as_ref();
                EventContent {
                    has_token: event.token.is_some(),
                    prompt_tokens: details.and_then(|details| details.input_length),
                    output_tokens: details.map(|details| details.generated_tokens),
                    is_end: event.generated_text.is_some(),
                }
            }
        })
    }
}

/// The names in a list of models, and whether each is a base (has no parent).
fn models(listed: &Value) -> Vec<(String, bool)> {
    let list = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(|model| Some((model["id"].as_str()?.to_owned(), model["parent"].is_null())))
        .collect()
}

/// The adapters that the arguments name, of those that the server lists.
fn selected(arguments: &LoadArguments, served: Vec<String>) -> Result<Vec<String>> {
    match (&arguments.adapters, &arguments.adapter_prefix) {
        (None, _) => Ok(Vec::new()),
        (Some(AdapterList::Names(names)), None) => Ok(names.clone()),
        (Some(AdapterList::Names(_)), Some(_)) => {
            bail!("--adapter-prefix goes with a number of --adapters, not with names")
        }
        (&Some(AdapterList::Count(count)), Some(prefix)) => {
            Ok((0..count).map(|i| format!("{prefix}{i:02}")).collect())
        }
        (&Some(AdapterList::Count(count)), None) => {
            ensure!(
                count <= served.len(),
                "--adapters is {count}, but the server lists {} adapters",
                served.len()
            );
            Ok(served.into_iter().take(count).collect())
        }
    }
}

/// The fields of all dialects' events that are read. One type, since the names do not clash.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    #[serde(default)]
    content: HasText,
    #[serde(default)]
    stop: bool,
    tokens_evaluated: Option<usize>,
    tokens_predicted: Option<usize>,
    token: Option<IgnoredAny>,
    generated_text: Option<IgnoredAny>,
    details: Option<Details>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: HasText,
    finish_reason: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
}

#[derive(Deserialize)]
struct Details {
    generated_tokens: usize,
    input_length: Option<usize>,
}

/// Whether a string has something in it; the text itself is not kept.
#[derive(Default)]
struct HasText(bool);

impl<'de> Deserialize<'de> for HasText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = HasText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or null")
            }
            fn visit_str<E>(self, text: &str) -> Result<HasText, E> {
                Ok(HasText(!text.is_empty()))
            }
            fn visit_unit<E>(self) -> Result<HasText, E> {
                Ok(HasText(false))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openai() -> Dialect {
        Dialect::Openai {
            base: "base".to_owned(),
            adapters: vec!["a".to_owned(), "b".to_owned()],
        }
    }

    fn llama_cpp() -> Dialect {
        Dialect::LlamaCpp {
            all: vec![0, 1, 2],
            adapters: vec![2, 1],
        }
    }

    fn tgi() -> Dialect {
        Dialect::Tgi {
            adapters: vec!["a".to_owned()],
        }
    }

    fn parse(dialect: &Dialect, data: &str) -> EventContent {
        dialect.parse_event(data.as_bytes()).expect("an event")
    }

    #[test]
    fn a_request_names_its_adapter_as_its_dialect_does() {
        let body = |dialect: Dialect, adapter| -> Value {
            serde_json::from_str(&dialect.body("x", adapter, 5)).expect("JSON")
        };
        assert_eq!(body(openai(), None)["model"], "base");
        assert_eq!(body(openai(), Some(1))["model"], "b");
        assert_eq!(body(openai(), Some(1))["max_tokens"], 5);
        let zeros = json!([{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.0}, {"id": 2, "scale": 0.0}]);
        assert_eq!(body(llama_cpp(), None)["lora"], zeros);
        assert_eq!(
            body(llama_cpp(), Some(0))["lora"][2],
            json!({"id": 2, "scale": 1.0})
        );
        assert_eq!(body(tgi(), Some(0))["parameters"]["adapter_id"], "a");
        assert!(body(tgi(), None)["parameters"]["adapter_id"].is_null());
    }

    #[test]
    fn events_of_every_dialect_are_understood() {
        let token = EventContent {
            has_token: true,
            ..EventContent::default()
        };
        let counts = |is_end| EventContent {
            prompt_tokens: Some(128),
            output_tokens: Some(64),
            is_end,
            ..EventContent::default()
        };
        assert_eq!(
            parse(
                &openai(),
                r#"{"id":"x","choices":[{"text":"\n","finish_reason":null}],"usage":null}"#
            ),
            token
        );
        let last = r#"{"choices":[{"text":"","finish_reason":"length"}]}"#;
        assert_eq!(parse(&openai(), last), EventContent::default());
        let usage =
            r#"{"choices":[],"usage":{"prompt_tokens":128,"completion_tokens":64,"total_tokens":192}}"#;
        assert_eq!(parse(&openai(), usage), counts(false));
        assert!(parse(&openai(), "[DONE]").is_end);
        assert!(
            parse(
                &llama_cpp(),
                r#"{"index":0,"content":" a","stop":false,"tokens":[3]}"#
            )
            .has_token
        );
        let last = r#"{"content":"","stop":true,"tokens_predicted":64,"tokens_evaluated":128,"timings":{}}"#;
        assert_eq!(parse(&llama_cpp(), last), counts(true));
        assert_eq!(
            parse(
                &tgi(),
                r#"{"index":1,"token":{"id":1,"text":"a"},"generated_text":null,"details":null}"#
            ),
            token
        );
        let last = r#"{"token":{"id":1},"generated_text":"aa","details":{"generated_tokens":64,"input_length":128}}"#;
        assert_eq!(
            parse(&tgi(), last),
            EventContent {
                has_token: true,
                ..counts(true)
            }
        );
    }

    #[test]
    fn an_error_in_an_answer_is_a_failure() {
        let error = openai().parse_event(br#"{"error":{"message":"the engine stopped"}}"#);
        assert_eq!(error, Err(Failure::InStream("the engine stopped".to_owned())));
        assert!(matches!(
            openai().parse_event(b"nonsense"),
            Err(Failure::Broken(_))
        ));
    }

    #[test]
    fn models_without_a_parent_are_bases() {
        let listed = json!({"data": [{"id": "m", "parent": null}, {"id": "a", "parent": "m"}]});
        assert_eq!(models(&listed), [("m".to_owned(), true), ("a".to_owned(), false)]);
        assert_eq!(models(&json!({})), []);
    }
}
