//! The parameters that chat and completions share.

use multigraft_engine::{Request, Sampling, Stop, Tenant};
use serde_json::Value;

use super::prompt::Truncation;
use crate::{
    contract::limits::Limits,
    http::{
        error::ApiError,
        fields::{Fields, whole},
    },
};

/// OpenAI's range for a bias. At ±100 a token is as good as certain or excluded.
const BIAS_RANGE: std::ops::RangeInclusive<f64> = -100.0..=100.0;

/// OpenAI's upper end for the temperature.
const MAX_TEMPERATURE: f32 = 2.0;

/// What both kinds of completion take.
#[derive(Debug)]
pub(crate) struct Parameters {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What ends an answer.
    pub stop: Stop,
    /// `max_tokens` or `max_completion_tokens`.
    pub max_tokens: Option<usize>,
    /// Answers per prompt.
    pub n: usize,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether the stream ends with a chunk that carries the usage.
    pub include_usage: bool,
    /// Whether every chunk carries it, as far as it is known.
    pub continuous_usage: bool,
    /// `prompt_logprobs`, of vLLM: every token of the prompt comes with its log-probability, its
    /// rank and so many of the likeliest tokens in its place.
    pub prompt_logprobs: Option<usize>,
    /// `return_token_ids`, of vLLM: whether the answer has the ids of the prompt's and its own
    /// tokens.
    pub token_ids: bool,
    /// `return_tokens_as_token_ids`, of vLLM: whether log-probabilities name tokens by their ids.
    pub named_by_id: bool,
    /// `skip_special_tokens: false`, of vLLM: whether special tokens are in the answer's text.
    pub show_special: bool,
    /// vLLM's `priority`.
    pub priority: i64,
    /// How prompts that are too long are cut, if they are.
    pub(super) truncation: Option<Truncation>,
    /// `cache_salt`, vLLM's name for it: prefixes are shared among requests that say the same.
    pub tenant: Option<Tenant>,
}

impl Parameters {
    pub(crate) fn take(fields: &mut Fields, limits: &Limits) -> Result<Self, ApiError> {
        refuse_unsupported(fields)?;
        fields.ignore(HARMLESS);
        let stream = fields.flag("stream")?.unwrap_or(false);
        let (include_usage, continuous_usage) = usage(fields, stream)?;
        Ok(Self {
            sampling: sampling(fields)?,
            stop: stop(fields, limits)?,
            max_tokens: max_tokens(fields)?,
            n: fields.count_within("n", 1, limits.choices)?.unwrap_or(1),
            stream,
            include_usage,
            continuous_usage,
            prompt_logprobs: prompt_logprobs(fields, limits, stream)?,
            token_ids: fields.flag("return_token_ids")?.unwrap_or(false),
            named_by_id: fields.flag("return_tokens_as_token_ids")?.unwrap_or(false),
            show_special: !fields.flag("skip_special_tokens")?.unwrap_or(true),
            priority: priority(fields)?,
            truncation: Truncation::take(fields)?,
            tenant: tenant(fields)?,
        })
    }

    /// The sampling of choice `index` of one prompt: with a seed, each its own.
    pub(crate) fn sampling_of(&self, index: usize) -> Sampling {
        let mut sampling = self.sampling.clone();
        sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(index as u64));
        sampling
    }

    /// What the engine is asked for choice `index` of one prompt; the model and what is to be
    /// scored are left out.
    pub(crate) fn request(&self, prompt: Vec<u32>, max_tokens: usize, index: usize) -> Request {
        Request {
            sampling: self.sampling_of(index),
            stop: self.stop.clone(),
            show_special: self.show_special,
            priority: self.priority,
            tenant: self.tenant,
            ..Request::new(prompt, max_tokens)
        }
    }

    /// Cuts a prompt as the request says, where a sequence may have `context` tokens; says whether
    /// anything was dropped.
    pub(super) fn truncate(&self, prompt: &mut Vec<u32>, context: usize) -> bool {
        let room = context.saturating_sub(self.max_tokens.unwrap_or(1));
        self.truncation
            .is_some_and(|truncation| truncation.apply(prompt, room))
    }
}

/// Bookkeeping of OpenAI's service and hints about speed: without effect on the tokens.
const HARMLESS: &[&str] = &[
    "user",
    "store",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
    "request_id",
    "session_id",
    "stream_interval",
    "spaces_between_special_tokens",
];

fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    let empty_list = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    fields.refuse("functions", "calling functions", empty_list)?;
    fields.refuse("function_call", "calling functions", |value| {
        value == "none" || value == "auto"
    })?;
    fields.refuse("modalities", "anything but text", |value| {
        value
            .as_array()
            .is_some_and(|kinds| kinds.iter().all(|kind| kind == "text"))
    })?;
    fields.refuse("bad_words", "words that may not come", empty_list)?;
    fields.refuse("allowed_token_ids", "choosing among some tokens", empty_list)?;
    fields.refuse(
        "logprob_token_ids",
        "log-probabilities of chosen tokens",
        empty_list,
    )?;
    fields.refuse("watermarking", "a watermark", |value| value == false)?;
    fields.refuse("include_reasoning", "leaving reasoning out", |value| {
        value == true
    })?;
    fields.refuse("use_beam_search", "beam search", |value| value == false)?;
    fields.refuse("length_penalty", "beam search", |value| {
        value == 1.0 || value == 1
    })?;
    for (name, what) in [
        ("suffix", "filling in before a suffix"),
        ("audio", "audio"),
        ("reasoning_effort", "choosing the effort of reasoning"),
        ("verbosity", "choosing the verbosity"),
        ("web_search_options", "searching the web"),
        (
            "api_token",
            "a token of the request's own: the server fetches with its HF_TOKEN",
        ),
    ] {
        fields.refuse(name, what, |value| value == "")?;
    }
    Ok(())
}

fn sampling(fields: &mut Fields) -> Result<Sampling, ApiError> {
    let default = Sampling::default();
    let sampling = Sampling {
        repetition_penalty: fields
            .number("repetition_penalty")?
            .unwrap_or(default.repetition_penalty),
        frequency_penalty: fields
            .number("frequency_penalty")?
            .unwrap_or(default.frequency_penalty),
        presence_penalty: fields
            .number("presence_penalty")?
            .unwrap_or(default.presence_penalty),
        logit_bias: logit_bias(fields)?,
        temperature: fields.number("temperature")?.unwrap_or(default.temperature),
        top_k: top_k(fields)?,
        top_p: fields.number("top_p")?.unwrap_or(default.top_p),
        min_p: fields.number("min_p")?.unwrap_or(default.min_p),
        typical_p: fields.number("typical_p")?.unwrap_or(default.typical_p),
        seed: seed(fields)?,
    };
    if sampling.temperature > MAX_TEMPERATURE {
        let problem = format!("is {}, but must be 0 to 2", sampling.temperature);
        return Err(fields.complain("temperature", &problem));
    }
    Ok(sampling)
}

/// vLLM's clients say 0 or -1 for "all".
fn top_k(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    match fields.take("top_k") {
        None => Ok(None),
        Some(value) if value == -1 || value == 0 => Ok(None),
        Some(value) => match whole(&value).and_then(|k| usize::try_from(k).ok()) {
            Some(k) => Ok(Some(k)),
            None => {
                let problem = format!("is {value}, but must be a whole number: 1 or more, or -1 for all");
                Err(fields.complain("top_k", &problem))
            }
        },
    }
}

/// Any whole number: OpenAI's seeds are signed, the engine's are the same 64 bits.
#[expect(clippy::cast_sign_loss, reason = "a seed is 64 bits, not a quantity")]
fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    match fields.take("seed") {
        None => Ok(None),
        Some(value) => match value.as_u64().or(value.as_i64().map(|seed| seed as u64)) {
            Some(seed) => Ok(Some(seed)),
            None => Err(fields.complain("seed", &format!("is {value}, but must be a whole number"))),
        },
    }
}

#[expect(clippy::cast_possible_truncation, reason = "within ±100, checked")]
fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(map) = fields.object("logit_bias")? else {
        return Ok(Vec::new());
    };
    let entry = |(token, bias): (&String, &Value)| {
        let token = token.parse::<u32>().ok()?;
        let bias = bias.as_f64().filter(|bias| BIAS_RANGE.contains(bias))?;
        Some((token, bias as f32))
    };
    map.into_rest()
        .iter()
        .map(|(token, bias)| {
            entry((token, bias)).ok_or_else(|| {
                fields.complain(
                    "logit_bias",
                    &format!(
                        "has the entry {token:?}: {bias}, but must map token ids to numbers between -100 and 100"
                    ),
                )
            })
        })
        .collect()
}

fn stop(fields: &mut Fields, limits: &Limits) -> Result<Stop, ApiError> {
    let tokens = fields.list("stop_token_ids")?.unwrap_or_default();
    let tokens = tokens
        .iter()
        .map(|id| {
            whole(id)
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| fields.complain("stop_token_ids", "must be a list of token ids"))
        })
        .collect::<Result<_, _>>()?;
    let ignore_eos = fields.flag("ignore_eos")?;
    let ignore_eos_token = fields.flag("ignore_eos_token")?;
    let min_tokens = fields.count("min_tokens")?.unwrap_or(0);
    Ok(Stop {
        min_tokens: usize::try_from(min_tokens).unwrap_or(usize::MAX),
        strings: fields.strings("stop", limits.stop_strings)?,
        tokens,
        ignore_eos: ignore_eos.or(ignore_eos_token).unwrap_or(false),
        include_stop_string: fields.flag("include_stop_str_in_output")?.unwrap_or(false),
    })
}

/// The newer name wins, as in OpenAI's API.
fn max_tokens(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let older = fields.count("max_tokens")?;
    let newer = fields.count("max_completion_tokens")?;
    Ok(newer
        .or(older)
        .map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)))
}

/// An empty one is refused, as in vLLM: whoever forgot to fill it in would share with all others
/// who did.
pub(super) fn tenant(fields: &mut Fields) -> Result<Option<Tenant>, ApiError> {
    match fields.string("cache_salt")? {
        Some(salt) if salt.is_empty() => Err(fields.complain("cache_salt", "is empty")),
        salt => Ok(salt.as_deref().map(Tenant::new)),
    }
}

/// As in vLLM not for streams, and exact: more alternatives than the engine gives are refused.
fn prompt_logprobs(fields: &mut Fields, limits: &Limits, stream: bool) -> Result<Option<usize>, ApiError> {
    let name = "prompt_logprobs";
    let asked = fields.count_within(name, 0, limits.alternatives)?;
    match asked {
        Some(_) if stream => {
            Err(fields.complain(name, "is only given with answers in one piece, not in streams"))
        }
        asked => Ok(asked),
    }
}

/// Any whole number of 64 bits, lower ones first.
fn priority(fields: &mut Fields) -> Result<i64, ApiError> {
    match fields.take("priority") {
        None => Ok(0),
        Some(value) => value
            .as_i64()
            .ok_or_else(|| fields.complain("priority", &format!("is {value}, but must be a whole number"))),
    }
}

/// Whether a stream ends with the usage, and whether every chunk has it.
fn usage(fields: &mut Fields, stream: bool) -> Result<(bool, bool), ApiError> {
    let Some(mut options) = fields.object("stream_options")? else {
        return Ok((false, false));
    };
    if !stream {
        return Err(fields.complain("stream_options", "is only allowed with `stream`: true"));
    }
    let include = options.flag("include_usage")?.unwrap_or(false);
    let continuous = options.flag("continuous_usage_stats")?.unwrap_or(false);
    options.ignore(&["include_obfuscation"]);
    options.finish()?;
    // As in vLLM the one without the other means nothing.
    Ok((include, include && continuous))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(json: &str) -> Result<Parameters, ApiError> {
        let mut fields = Fields::from_json(json.as_bytes())?;
        let parameters = Parameters::take(&mut fields, &Limits::default())?;
        fields.finish().map(|()| parameters)
    }

    #[test]
    fn an_empty_request_has_openais_defaults() {
        let parameters = take("{}").expect("valid");
        assert_eq!(parameters.sampling, Sampling::default());
        assert_eq!(parameters.stop, Stop::default());
        assert_eq!((parameters.n, parameters.stream), (1, false));
    }

    #[test]
    fn what_has_no_effect_is_accepted() {
        let json = r#"{"user":"u","store":true,"metadata":{"a":"b"},"service_tier":"auto",
            "suffix":null,"bad_words":[],"spaces_between_special_tokens":false,"session_id":"s","modalities":["text"],
            "top_k":-1,"logit_bias":{"7":-100}}"#;
        let parameters = take(json).expect("valid");
        assert_eq!(parameters.sampling.top_k, None);
        assert_eq!(parameters.sampling.logit_bias, [(7, -100.0)]);
    }

    #[test]
    fn what_would_have_an_effect_is_refused_by_name() {
        for (json, field) in [
            (r#"{"bad_words":["x"]}"#, "bad_words"),
            (r#"{"allowed_token_ids":[1]}"#, "allowed_token_ids"),
            (r#"{"watermarking":true}"#, "watermarking"),
            (r#"{"suffix":"x"}"#, "suffix"),
            (r#"{"min_tokens":-3}"#, "min_tokens"),
            (r#"{"prompt_logprobs":-1}"#, "prompt_logprobs"),
            (r#"{"prompt_logprobs":21}"#, "prompt_logprobs"),
            (r#"{"prompt_logprobs":0,"stream":true}"#, "prompt_logprobs"),
            (r#"{"priority":0.5}"#, "priority"),
            (r#"{"skip_special_tokens":0}"#, "skip_special_tokens"),
            (r#"{"truncate_prompt_tokens":0}"#, "truncate_prompt_tokens"),
            (r#"{"temprature":1}"#, "temprature"),
            (r#"{"temperature":2.5}"#, "temperature"),
            (r#"{"n":0}"#, "n"),
            (r#"{"n":1000}"#, "n"),
            (r#"{"logit_bias":{"x":1}}"#, "logit_bias"),
            (r#"{"logit_bias":{"3":101}}"#, "logit_bias"),
            (
                r#"{"stop":["a","b","c","d","e","f","g","h","i","j","k","l","m","n","o","p","q"]}"#,
                "stop",
            ),
            (r#"{"stop_token_ids":[-1]}"#, "stop_token_ids"),
            (r#"{"cache_salt":""}"#, "cache_salt"),
            (r#"{"cache_salt":7}"#, "cache_salt"),
            (r#"{"seed":1.5}"#, "seed"),
            (r#"{"stream_options":{"include_usage":true}}"#, "stream_options"),
            (
                r#"{"stream":true,"stream_options":{"x":true}}"#,
                "stream_options.x",
            ),
        ] {
            let error = take(json).expect_err(json);
            assert_eq!(error.field(), Some(field), "{error}");
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn the_newer_name_of_max_tokens_wins() {
        let parameters = take(r#"{"max_tokens":5,"max_completion_tokens":7}"#).expect("valid");
        assert_eq!(parameters.max_tokens, Some(7));
    }

    #[test]
    fn a_cache_salt_names_a_tenant() {
        assert_eq!(take("{}").expect("valid").tenant, None);
        let parameters = take(r#"{"cache_salt":"a"}"#).expect("valid");
        assert_eq!(parameters.tenant, Some(Tenant::new("a")));
    }

    #[test]
    fn choices_with_a_seed_differ_and_repeat() {
        let parameters = take(r#"{"seed":-1,"n":2}"#).expect("valid");
        assert_eq!(parameters.sampling_of(0).seed, Some(u64::MAX));
        assert_eq!(parameters.sampling_of(1).seed, Some(0));
    }
}
