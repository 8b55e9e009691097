//! What a request looks like on the wire, and what its answer's events say.

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, Visitor},
};
use serde_json::{Value, json};

use super::{
    super::arguments::{AdapterList, DialectName, ServeArguments},
    http::Server,
    record::Failure,
};

/// One of the APIs, with the names that this server uses.
#[derive(Debug)]
pub(in crate::commands::bench) enum Dialect {
    /// OpenAI's completions; adapters and base by name.
    Openai { base: String, adapters: Vec<String> },
    /// llama.cpp's own; adapters by id, with all ids that the server has.
    LlamaCpp { all: Vec<u64>, adapters: Vec<u64> },
    /// TGI's and LoRAX's; adapters by name.
    Tgi { adapters: Vec<String> },
}

/// What an event of an answer says.
#[derive(Debug, Default, PartialEq)]
pub(in crate::commands::bench) struct Said {
    /// A token came, or several at once.
    pub token: bool,
    /// Tokens of the prompt.
    pub prompt_tokens: Option<usize>,
    /// Tokens of the answer.
    pub output_tokens: Option<usize>,
    /// The answer is complete.
    pub done: bool,
}

impl Dialect {
    /// Asks the server for the names that the arguments leave open.
    pub(in crate::commands::bench) async fn of(server: &Server, arguments: &ServeArguments) -> Result<Self> {
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
                    _ => models(&server.get("/v1/models").await?),
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
                    adapters: chosen(arguments, names.collect())?,
                })
            }
            DialectName::LlamaCpp => {
                ensure!(
                    arguments.adapter_prefix.is_none(),
                    "llama.cpp's server knows adapters by id: leave --adapter-prefix out"
                );
                let listed = server.get("/lora-adapters").await?;
                let ids = listed.as_array().map(Vec::as_slice).unwrap_or_default();
                let all: Vec<u64> = ids.iter().filter_map(|adapter| adapter["id"].as_u64()).collect();
                let chosen = chosen(arguments, all.iter().map(ToString::to_string).collect())?;
                let id = |name: &String| {
                    let id = name.parse().ok().filter(|id| all.contains(id));
                    id.with_context(|| format!("the server has no adapter `{name}`; it has the ids {all:?}"))
                };
                let adapters = chosen.iter().map(id).collect::<Result<_>>()?;
                Ok(Self::LlamaCpp { all, adapters })
            }
            DialectName::Tgi => {
                let names = match (&arguments.adapters, &arguments.adapter_prefix) {
                    (Some(AdapterList::Count(_)), None) => models(&server.get("/v1/models").await?),
                    _ => Vec::new(),
                };
                let names = names.into_iter().filter(|(_, base)| !base).map(|(name, _)| name);
                Ok(Self::Tgi {
                    adapters: chosen(arguments, names.collect())?,
                })
            }
        }
    }

    /// How many adapters are asked; 0 means the base.
    pub(in crate::commands::bench) fn adapters(&self) -> usize {
        match self {
            Self::Openai { adapters, .. } | Self::Tgi { adapters } => adapters.len(),
            Self::LlamaCpp { adapters, .. } => adapters.len(),
        }
    }

    /// The path that requests go to.
    pub(in crate::commands::bench) fn path(&self) -> &'static str {
        match self {
            Self::Openai { .. } => "/v1/completions",
            Self::LlamaCpp { .. } => "/completion",
            Self::Tgi { .. } => "/generate_stream",
        }
    }

    /// The body of a request: greedy, streamed, of the full length.
    pub(in crate::commands::bench) fn body(
        &self,
        prompt: &str,
        adapter: Option<usize>,
        output: usize,
    ) -> String {
        let body = match self {
            Self::Openai { base, adapters } => json!({
                "model": adapter.map_or(base, |index| &adapters[index]),
                "prompt": prompt,
                "max_tokens": output,
                "temperature": 0,
                "ignore_eos": true,
                "stream": true,
                "stream_options": {"include_usage": true},
            }),
            Self::LlamaCpp { all, adapters } => {
                let wanted = adapter.map(|index| adapters[index]);
                // Adapters that are not named keep the scale that the server was started with.
                let scale =
                    |id: &u64| json!({"id": id, "scale": if wanted == Some(*id) { 1.0 } else { 0.0 }});
                json!({
                    "prompt": prompt,
                    "n_predict": output,
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
                    "max_new_tokens": output,
                    "ignore_eos_token": true,
                    "details": true,
                },
            }),
        };
        body.to_string()
    }

    /// What an event's data says.
    pub(in crate::commands::bench) fn read(&self, data: &[u8]) -> Result<Said, Failure> {
        if data == b"[DONE]" {
            return Ok(Said {
                done: true,
                ..Said::default()
            });
        }
        let event: Event = serde_json::from_slice(data)
            .map_err(|error| Failure::Broken(format!("an event is not what it should be: {error}")))?;
        if let Some(error) = event.error {
            return Err(Failure::midway(&error));
        }
        Ok(match self {
            Self::Openai { .. } => Said {
                token: event
                    .choices
                    .iter()
                    .any(|c| c.text.0 || c.finish_reason.is_none()),
                prompt_tokens: event.usage.as_ref().map(|usage| usage.prompt_tokens),
                output_tokens: event.usage.as_ref().map(|usage| usage.completion_tokens),
                done: false,
            },
            Self::LlamaCpp { .. } => Said {
                token: event.content.0 || !event.stop,
                prompt_tokens: event.tokens_evaluated,
                output_tokens: event.tokens_predicted,
                done: event.stop,
            },
            Self::Tgi { .. } => {
                let details = event.details.as_ref();
                Said {
                    token: event.token.is_some(),
                    prompt_tokens: details.and_then(|details| details.input_length),
                    output_tokens: details.map(|details| details.generated_tokens),
                    done: event.generated_text.is_some(),
                }
            }
        })
    }
}

/// The names of a list of models, and whether each is a base (has no parent).
fn models(listed: &Value) -> Vec<(String, bool)> {
    let list = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(|model| Some((model["id"].as_str()?.to_owned(), model["parent"].is_null())))
        .collect()
}

/// The adapters that the arguments ask for, of those that the server has.
fn chosen(arguments: &ServeArguments, served: Vec<String>) -> Result<Vec<String>> {
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

/// The fields of all dialects' events that matter here. One type: their names do not clash.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    #[serde(default)]
    content: Filled,
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
    text: Filled,
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
struct Filled(bool);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Filled;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or null")
            }
            fn visit_str<E>(self, text: &str) -> Result<Filled, E> {
                Ok(Filled(!text.is_empty()))
            }
            fn visit_unit<E>(self) -> Result<Filled, E> {
                Ok(Filled(false))
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

    fn read(dialect: &Dialect, data: &str) -> Said {
        dialect.read(data.as_bytes()).expect("an event")
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
        let token = Said {
            token: true,
            ..Said::default()
        };
        let counts = |done| Said {
            prompt_tokens: Some(128),
            output_tokens: Some(64),
            done,
            ..Said::default()
        };
        assert_eq!(
            read(
                &openai(),
                r#"{"id":"x","choices":[{"text":"\n","finish_reason":null}],"usage":null}"#
            ),
            token
        );
        let last = r#"{"choices":[{"text":"","finish_reason":"length"}]}"#;
        assert_eq!(read(&openai(), last), Said::default());
        let usage =
            r#"{"choices":[],"usage":{"prompt_tokens":128,"completion_tokens":64,"total_tokens":192}}"#;
        assert_eq!(read(&openai(), usage), counts(false));
        assert!(read(&openai(), "[DONE]").done);
        assert!(
            read(
                &llama_cpp(),
                r#"{"index":0,"content":" a","stop":false,"tokens":[3]}"#
            )
            .token
        );
        let last = r#"{"content":"","stop":true,"tokens_predicted":64,"tokens_evaluated":128,"timings":{}}"#;
        assert_eq!(read(&llama_cpp(), last), counts(true));
        assert_eq!(
            read(
                &tgi(),
                r#"{"index":1,"token":{"id":1,"text":"a"},"generated_text":null,"details":null}"#
            ),
            token
        );
        let last = r#"{"token":{"id":1},"generated_text":"aa","details":{"generated_tokens":64,"input_length":128}}"#;
        assert_eq!(
            read(&tgi(), last),
            Said {
                token: true,
                ..counts(true)
            }
        );
    }

    #[test]
    fn an_error_in_an_answer_is_a_failure() {
        let error = openai().read(br#"{"error":{"message":"the engine stopped"}}"#);
        assert_eq!(error, Err(Failure::Midway("the engine stopped".to_owned())));
        assert!(matches!(openai().read(b"nonsense"), Err(Failure::Broken(_))));
    }

    #[test]
    fn models_without_a_parent_are_bases() {
        let listed = json!({"data": [{"id": "m", "parent": null}, {"id": "a", "parent": "m"}]});
        assert_eq!(models(&listed), [("m".to_owned(), true), ("a".to_owned(), false)]);
        assert_eq!(models(&json!({})), []);
    }
}
