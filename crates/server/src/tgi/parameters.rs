//! `parameters` of a TGI request.

use multigraft_engine::{Sampling, Stop};
use serde_json::json;

use crate::{
    contract::{
        fields::{Body, tgi as row},
        limits::Limits,
    },
    generation::{
        chat::conversation::Conversation,
        choice::ModelChoice,
        constraints,
        defaults::Defaults,
        request::{Chat, GenerationRequest, Input},
        truncation::Truncation,
    },
    http::{error::ApiError, fields::Fields},
};

/// TGI's default for `max_new_tokens`.
const DEFAULT_NEW_TOKENS: usize = 100;

/// The path of `apply_chat_template`.
pub(super) const CHAT_FIELD: &str = "parameters.apply_chat_template";

/// A request in TGI's dialect.
#[derive(Debug)]
pub(super) struct Generate {
    /// The request to generate, without log-probabilities, which depend on the route.
    pub request: GenerationRequest,
    /// The prompt, as it was sent.
    pub inputs: String,
    /// Whether the answer is streamed.
    pub stream: Option<bool>,
    /// Whether the answer begins with the prompt.
    pub return_full_text: bool,
    /// Whether the answer has details.
    pub details: bool,
    /// `top_n_tokens`: alternatives to each token, in lists beside the tokens.
    pub top_n_tokens: usize,
    /// LoRAX's `return_k_alternatives`: alternatives to each token, in the token.
    pub alternatives: usize,
}

impl Generate {
    /// Reads the request. `defaults` returns the defaults of the chosen adapter.
    pub(super) fn take(
        mut fields: Fields,
        limits: &Limits,
        defaults: impl Fn(&ModelChoice) -> Defaults,
    ) -> Result<Self, ApiError> {
        let inputs = match fields.string(row::INPUTS)? {
            Some(inputs) if inputs.is_empty() => return Err(fields.complain(row::INPUTS, "is empty")),
            Some(inputs) => inputs,
            None => return Err(fields.complain(row::INPUTS, "is missing")),
        };
        let add_special = fields.flag(row::ADD_SPECIAL_TOKENS)?.unwrap_or(true);
        let stream = fields.flag(row::STREAM)?;
        fields.drop_unsupported(Body::Generate)?;
        let mut parameters = match fields.object(row::PARAMETERS)? {
            Some(parameters) => parameters,
            None => Fields::none(row::PARAMETERS.name),
        };
        fields.finish()?;

        parameters.drop_unsupported(Body::Parameters)?;
        let choice = ModelChoice::tgi(&mut parameters, limits)?;
        let details = parameters.flag(row::DETAILS)?.unwrap_or(false);
        let decoder_input_details = parameters.flag(row::DECODER_INPUT_DETAILS)?.unwrap_or(false);
        let defaults = defaults(&choice);
        defaults.fill(&mut parameters, Body::Parameters);
        let request = GenerationRequest {
            choice,
            sampling: sampling(&mut parameters, limits)?,
            stop: Stop {
                strings: parameters.strings(&row::STOP, limits)?,
                tokens: Vec::new(),
                ignore_eos: parameters.flag(row::IGNORE_EOS_TOKEN)?.unwrap_or(false),
                // TGI's answers contain the stop string that ended them.
                include_stop_string: true,
                min_tokens: 0,
            },
            constrained: constraints::of_tgi(&mut parameters)?,
            max_tokens: parameters.count(&row::MAX_NEW_TOKENS, limits)?,
            default_max_tokens: DEFAULT_NEW_TOKENS,
            // Without room for any token the engine's refusal says why.
            without_tokens: |_, _, _| Ok(1),
            truncation: parameters.count(&row::TRUNCATE, limits)?.map(Truncation::to_last),
            answers: parameters.count(&row::BEST_OF, limits)?.unwrap_or(1),
            stream: false,
            logprobs: None,
            prompt_logprobs: decoder_input_details.then_some(0),
            show_special: false,
            priority: 0,
            tenant: None,
            input: match parameters.flag(row::APPLY_CHAT_TEMPLATE)?.unwrap_or(false) {
                true => as_chat(&inputs, defaults)?,
                false => Input::Text {
                    field: row::INPUTS.name,
                    text: inputs.clone(),
                    add_special,
                },
            },
        };
        let generate = Self {
            inputs,
            stream,
            return_full_text: parameters.flag(row::RETURN_FULL_TEXT)?.unwrap_or(false),
            // As in TGI, `decoder_input_details` implies `details`.
            details: details || decoder_input_details,
            top_n_tokens: parameters.count(&row::TOP_N_TOKENS, limits)?.unwrap_or(0),
            alternatives: parameters
                .count(&row::RETURN_K_ALTERNATIVES, limits)?
                .unwrap_or(0),
            request,
        };
        let (answers, sampling) = (generate.request.answers, &generate.request.sampling);
        if answers > 1 {
            let problem = if sampling.temperature == 0.0 {
                Some("is above 1, but nothing is drawn: all answers would be the same; set `do_sample`")
            } else if sampling.seed.is_some() {
                Some("is not allowed with a `seed`, which would make all answers the same")
            } else {
                None
            };
            if let Some(problem) = problem {
                return Err(parameters.complain(row::BEST_OF, problem));
            }
        }
        parameters.finish()?;
        Ok(generate)
    }
}

/// The prompt as the only message of a chat, with the adapter's chat template and system message.
fn as_chat(inputs: &str, defaults: Defaults) -> Result<Input, ApiError> {
    let mut fields = Fields::none(row::PARAMETERS.name);
    fields.set("messages", json!([{"role": "user", "content": inputs}]));
    let field = CHAT_FIELD;
    let no_template = format!("`{field}` is true, but neither model nor adapter has a chat template");
    Ok(Input::Chat(Box::new(Chat {
        field: row::INPUTS.name,
        conversation: Conversation::take(&mut fields, &defaults)?,
        tools: None,
        defaults,
        // The template writes the special tokens.
        add_special: false,
        no_template: ApiError::invalid(field, no_template),
    })))
}

/// TGI's rule: tokens are sampled if `do_sample` is true or a parameter of sampling is given.
/// Otherwise the most likely token is taken.
fn sampling(parameters: &mut Fields, limits: &Limits) -> Result<Sampling, ApiError> {
    let do_sample = parameters.flag(row::DO_SAMPLE)?.unwrap_or(false);
    // TGI refuses 0. In LoRAX, 0 takes the most likely token, whatever else is given.
    let temperature = parameters.number(&row::TEMPERATURE)?;
    let top_k = parameters.count(&row::TOP_K, limits)?;
    let top_p = parameters.number(&row::TOP_P)?;
    let typical_p = parameters.number(&row::TYPICAL_P)?;
    let draws =
        do_sample || temperature.is_some() || top_k.is_some() || top_p.is_some() || typical_p.is_some();
    let default = Sampling::default();
    let mut number = |field, default| Ok::<_, ApiError>(parameters.number(field)?.unwrap_or(default));
    Ok(Sampling {
        temperature: if draws { temperature.unwrap_or(1.0) } else { 0.0 },
        top_k,
        top_p: top_p.unwrap_or(default.top_p),
        typical_p: typical_p.unwrap_or(default.typical_p),
        repetition_penalty: number(&row::REPETITION_PENALTY, default.repetition_penalty)?,
        frequency_penalty: number(&row::FREQUENCY_PENALTY, default.frequency_penalty)?,
        presence_penalty: number(&row::PRESENCE_PENALTY, default.presence_penalty)?,
        seed: parameters.count(&row::SEED, limits)?.map(|seed| seed as u64),
        ..default
    })
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
        take(&json).expect("valid").request.sampling
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
        assert!(
            matches!(generate.request.choice, ModelChoice::One { name, scale: 1.0, .. } if name.is_empty())
        );
        assert_eq!(generate.stream, Some(false));
        assert_eq!(generate.request.max_tokens, None);
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
