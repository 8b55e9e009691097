//! `parameters` of a TGI request.

use multigraft_engine::{Sampling, Stop};
use serde_json::Value;

use crate::{
    contract::limits::Limits,
    generation::{
        choice::ModelChoice,
        constraints::{self},
        defaults::Defaults,
    },
    http::{error::ApiError, fields::Fields},
    state::grammars::Constrained,
};

/// A request to generate, its values checked as far as that is possible without tokens.
#[derive(Debug)]
pub(super) struct Generate {
    /// The prompt.
    pub inputs: String,
    /// Whether the tokenizer's own special tokens (BOS) are added to it.
    pub add_special_tokens: bool,
    /// Whether the answer is streamed.
    pub stream: Option<bool>,
    /// The model that is to answer.
    pub choice: ModelChoice,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What ends the answer.
    pub stop: Stop,
    /// What the answer must be.
    pub constrained: Option<Constrained>,
    /// The most tokens to generate; `None` is the server's default.
    pub max_new_tokens: Option<usize>,
    /// Whether the answer begins with the prompt.
    pub return_full_text: bool,
    /// Only the last so many tokens of the prompt are used.
    pub truncate: Option<usize>,
    /// Whether the answer has details.
    pub details: bool,
    /// Whether the details have the prompt's tokens.
    pub decoder_input_details: bool,
    /// Alternatives per token, in lists of their own beside the tokens.
    pub top_n_tokens: usize,
    /// LoRAX's `return_k_alternatives`: alternatives per token, in the token.
    pub alternatives: usize,
    /// So many answers are made, of which the one of the highest mean log-probability is given.
    pub best_of: usize,
    /// LoRAX's `apply_chat_template`: the prompt is what a user says in a chat.
    pub apply_chat_template: bool,
}

impl Generate {
    /// `defaults` says what is meant where an adapter's request says nothing.
    pub(super) fn take(
        mut fields: Fields,
        limits: &Limits,
        defaults: impl Fn(&ModelChoice) -> Defaults,
    ) -> Result<Self, ApiError> {
        let inputs = match fields.string("inputs")? {
            Some(inputs) if inputs.is_empty() => return Err(fields.complain("inputs", "is empty")),
            Some(inputs) => inputs,
            None => return Err(fields.complain("inputs", "is missing")),
        };
        let add_special_tokens = fields.flag("add_special_tokens")?.unwrap_or(true);
        let stream = fields.flag("stream")?;
        // `options` are about the caching of Hugging Face's hosted service.
        fields.ignore(&["options"]);
        let mut parameters = match fields.object("parameters")? {
            Some(parameters) => parameters,
            None => Fields::none("parameters"),
        };
        fields.finish()?;

        refuse_unsupported(&mut parameters)?;
        let choice = ModelChoice::tgi(&mut parameters)?;
        defaults(&choice).fill_tgi(&mut parameters);
        let details = parameters.flag("details")?.unwrap_or(false);
        // TGI's answers have details then, asked for or not.
        let decoder_input_details = parameters.flag("decoder_input_details")?.unwrap_or(false);
        let alternatives = |name, parameters: &mut Fields| {
            let count = parameters.count_within(name, 0, limits.alternatives)?;
            Ok::<_, ApiError>(count.unwrap_or(0))
        };
        let generate = Self {
            inputs,
            add_special_tokens,
            stream,
            choice,
            sampling: sampling(&mut parameters)?,
            stop: Stop {
                strings: parameters.strings("stop", limits.stop_strings)?,
                tokens: Vec::new(),
                ignore_eos: parameters.flag("ignore_eos_token")?.unwrap_or(false),
                // TGI's answers contain what stopped them.
                include_stop_string: true,
                min_tokens: 0,
            },
            constrained: constraints::of_tgi(&mut parameters)?,
            max_new_tokens: parameters.count_within("max_new_tokens", 1, usize::MAX)?,
            return_full_text: parameters.flag("return_full_text")?.unwrap_or(false),
            truncate: parameters.count_within("truncate", 1, usize::MAX)?,
            details: details || decoder_input_details,
            decoder_input_details,
            top_n_tokens: alternatives("top_n_tokens", &mut parameters)?,
            alternatives: alternatives("return_k_alternatives", &mut parameters)?,
            best_of: parameters
                .count_within("best_of", 1, limits.choices)?
                .unwrap_or(1),
            apply_chat_template: parameters.flag("apply_chat_template")?.unwrap_or(false),
        };
        if generate.best_of > 1 {
            let problem = if generate.sampling.temperature == 0.0 {
                Some("is above 1, but nothing is drawn: all answers would be the same; set `do_sample`")
            } else if generate.sampling.seed.is_some() {
                Some("is not allowed with a `seed`, which would make all answers the same")
            } else {
                None
            };
            if let Some(problem) = problem {
                return Err(parameters.complain("best_of", problem));
            }
        }
        parameters.finish()?;
        Ok(generate)
    }
}

fn refuse_unsupported(parameters: &mut Fields) -> Result<(), ApiError> {
    parameters.refuse("watermark", "a watermark", |value| value == false)?;
    parameters.refuse(
        "api_token",
        "a token of the request's own: the server fetches with its HF_TOKEN",
        |_| false,
    )
}

/// TGI's rule: tokens are drawn if `do_sample` says so or if a parameter of drawing is given, else
/// the likeliest is taken.
fn sampling(parameters: &mut Fields) -> Result<Sampling, ApiError> {
    let do_sample = parameters.flag("do_sample")?.unwrap_or(false);
    // TGI refuses 0; LoRAX takes the likeliest token then, whatever else is given.
    let temperature = parameters.number("temperature")?;
    if let Some(below) = temperature.filter(|&temperature| temperature < 0.0) {
        let problem = format!("is {}, but must be 0 or more", Value::from(below));
        return Err(parameters.complain("temperature", &problem));
    }
    let top_k = parameters.count_within("top_k", 1, usize::MAX)?;
    let top_p = positive(parameters, "top_p", "above 0, at most 1")?;
    let typical_p = positive(parameters, "typical_p", "above 0, at most 1")?;
    let draws =
        do_sample || temperature.is_some() || top_k.is_some() || top_p.is_some() || typical_p.is_some();
    let default = Sampling::default();
    Ok(Sampling {
        temperature: if draws { temperature.unwrap_or(1.0) } else { 0.0 },
        top_k,
        top_p: top_p.unwrap_or(default.top_p),
        typical_p: typical_p.unwrap_or(default.typical_p),
        repetition_penalty: parameters
            .number("repetition_penalty")?
            .unwrap_or(default.repetition_penalty),
        frequency_penalty: parameters
            .number("frequency_penalty")?
            .unwrap_or(default.frequency_penalty),
        presence_penalty: parameters
            .number("presence_penalty")?
            .unwrap_or(default.presence_penalty),
        seed: parameters.count("seed")?,
        ..default
    })
}

/// A number above 0. Upper ends are the engine's to check.
fn positive(parameters: &mut Fields, name: &str, range: &str) -> Result<Option<f32>, ApiError> {
    match parameters.number(name)? {
        Some(number) if number <= 0.0 => {
            Err(parameters.complain(name, &format!("is {}, but must be {range}", Value::from(number))))
        }
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(json: &str) -> Result<Generate, ApiError> {
        Generate::take(Fields::from_json(json.as_bytes())?, &Limits::default(), |_| {
            Defaults::default()
        })
    }

    fn sampling_of(parameters: &str) -> Sampling {
        let json = format!(r#"{{"inputs":"x","parameters":{parameters}}}"#);
        take(&json).expect("valid").sampling
    }

    #[test]
    fn tokens_are_drawn_only_if_a_parameter_of_drawing_is_given() {
        for greedy in [
            "{}",
            r#"{"do_sample":false}"#,
            r#"{"repetition_penalty":1.2,"seed":3}"#,
            r#"{"do_sample":true,"temperature":0}"#,
        ] {
            assert_eq!(sampling_of(greedy).temperature, 0.0, "{greedy}");
        }
        for drawing in [
            r#"{"do_sample":true}"#,
            r#"{"top_k":3}"#,
            r#"{"top_p":0.5}"#,
            r#"{"typical_p":0.5}"#,
            r#"{"do_sample":false,"temperature":1.0}"#,
        ] {
            assert_eq!(sampling_of(drawing).temperature, 1.0, "{drawing}");
        }
        assert_eq!(sampling_of(r#"{"temperature":0.5}"#).temperature, 0.5);
    }

    #[test]
    fn what_a_client_sends_for_nothing_is_nothing() {
        // huggingface_hub sends every parameter that it knows, null where it was not given.
        let json = r#"{"inputs":"x","stream":false,"parameters":{"adapter_id":null,"best_of":null,"grammar":null,
            "watermark":false,"details":false,"do_sample":false,"decoder_input_details":false,"stop":[]}}"#;
        let generate = take(json).expect("valid");
        assert!(matches!(generate.choice, ModelChoice::One { name, scale: 1.0, .. } if name.is_empty()));
        assert_eq!(generate.stream, Some(false));
        assert_eq!(generate.max_new_tokens, None);
    }

    #[test]
    fn what_is_wrong_or_unsupported_is_named_with_its_path() {
        for (json, field) in [
            (r#"{"parameters":{}}"#, "inputs"),
            (r#"{"inputs":""}"#, "inputs"),
            (r#"{"inputs":["a"]}"#, "inputs"),
            (r#"{"inputs":"x","parameters":[]}"#, "parameters"),
            (r#"{"inputs":"x","params":{}}"#, "params"),
            (
                r#"{"inputs":"x","parameters":{"watermark":true}}"#,
                "parameters.watermark",
            ),
            (
                r#"{"inputs":"x","parameters":{"grammar":{"type":"json"}}}"#,
                "parameters.grammar.value",
            ),
            (
                r#"{"inputs":"x","parameters":{"best_of":2}}"#,
                "parameters.best_of",
            ),
            (
                r#"{"inputs":"x","parameters":{"best_of":2,"temperature":1,"seed":3}}"#,
                "parameters.best_of",
            ),
            (
                r#"{"inputs":"x","parameters":{"best_of":200,"do_sample":true}}"#,
                "parameters.best_of",
            ),
            (
                r#"{"inputs":"x","parameters":{"return_k_alternatives":21}}"#,
                "parameters.return_k_alternatives",
            ),
            (
                r#"{"inputs":"x","parameters":{"temperature":-1}}"#,
                "parameters.temperature",
            ),
            (r#"{"inputs":"x","parameters":{"top_k":0}}"#, "parameters.top_k"),
            (
                r#"{"inputs":"x","parameters":{"max_new_tokens":0}}"#,
                "parameters.max_new_tokens",
            ),
            (
                r#"{"inputs":"x","parameters":{"truncate":0}}"#,
                "parameters.truncate",
            ),
            (
                r#"{"inputs":"x","parameters":{"adapter_id":7}}"#,
                "parameters.adapter_id",
            ),
            (
                r#"{"inputs":"x","parameters":{"adapter":"a"}}"#,
                "parameters.adapter",
            ),
        ] {
            let error = take(json).expect_err(json);
            assert_eq!(error.field(), Some(field), "{error}");
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
