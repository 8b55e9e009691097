//! The parameters that chat and completions share.

use multigraft_engine::{Sampling, Stop, Tenant};
use serde_json::Value;

use crate::{
    contract::{
        fields::{Body, Kind, openai as row},
        limits::Limits,
    },
    generation::{
        choice::ModelChoice,
        request::{GenerationRequest, Input, WithoutTokens},
        truncation::Truncation,
    },
    http::{
        error::ApiError,
        fields::{Fields, whole},
    },
};

/// The fields that both kinds of completion have.
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
    /// Whether the stream ends with a chunk that has the usage.
    pub include_usage: bool,
    /// Whether every chunk has the usage so far.
    pub continuous_usage: bool,
    /// vLLM's `prompt_logprobs`: every token of the prompt has its log-probability, its rank and so
    /// many of the most likely tokens in its place.
    pub prompt_logprobs: Option<usize>,
    /// vLLM's `return_token_ids`: whether the answer has the ids of the prompt's and its own
    /// tokens.
    pub token_ids: bool,
    /// vLLM's `return_tokens_as_token_ids`: whether log-probabilities name tokens by their ids.
    pub named_by_id: bool,
    /// The opposite of vLLM's `skip_special_tokens`: whether special tokens are in the answer's
    /// text.
    pub show_special: bool,
    /// vLLM's `priority`.
    pub priority: i64,
    /// vLLM's `truncate_prompt_tokens` and `truncation_side`.
    truncation: Option<Truncation>,
    /// vLLM's `cache_salt`: the partition of the prefix cache.
    pub tenant: Option<Tenant>,
}

impl Parameters {
    /// Reads the fields of `body` that both kinds of completion have, and drops those that are
    /// ignored.
    pub(crate) fn take(fields: &mut Fields, body: Body, limits: &Limits) -> Result<Self, ApiError> {
        fields.drop_unsupported(body)?;
        let stream = fields.flag(row::STREAM)?.unwrap_or(false);
        let (include_usage, continuous_usage) = usage(fields, stream)?;
        Ok(Self {
            sampling: sampling(fields, limits)?,
            stop: stop(fields, limits)?,
            max_tokens: max_tokens(fields, limits)?,
            n: fields.count(&row::N, limits)?.unwrap_or(1),
            stream,
            include_usage,
            continuous_usage,
            prompt_logprobs: prompt_logprobs(fields, limits, stream)?,
            token_ids: fields.flag(row::RETURN_TOKEN_IDS)?.unwrap_or(false),
            named_by_id: fields.flag(row::RETURN_TOKENS_AS_TOKEN_IDS)?.unwrap_or(false),
            show_special: !fields.flag(row::SKIP_SPECIAL_TOKENS)?.unwrap_or(true),
            priority: fields.integer(&row::PRIORITY, Value::as_i64)?.unwrap_or(0),
            truncation: Truncation::take(fields, limits)?,
            tenant: tenant(fields)?,
        })
    }

    /// The request to generate, without constraints and log-probabilities of the answers.
    pub(super) fn request(
        &self,
        choice: ModelChoice,
        input: Input,
        limits: &Limits,
        without_tokens: WithoutTokens,
    ) -> GenerationRequest {
        GenerationRequest {
            choice,
            input,
            sampling: self.sampling.clone(),
            stop: self.stop.clone(),
            constrained: None,
            max_tokens: self.max_tokens,
            default_max_tokens: limits.default_max_tokens,
            without_tokens,
            truncation: self.truncation,
            answers: self.n,
            stream: self.stream,
            logprobs: None,
            prompt_logprobs: self.prompt_logprobs,
            show_special: self.show_special,
            priority: self.priority,
            tenant: self.tenant,
        }
    }
}

fn sampling(fields: &mut Fields, limits: &Limits) -> Result<Sampling, ApiError> {
    let default = Sampling::default();
    let mut number = |field, default| Ok::<_, ApiError>(fields.number(field)?.unwrap_or(default));
    Ok(Sampling {
        repetition_penalty: number(&row::REPETITION_PENALTY, default.repetition_penalty)?,
        frequency_penalty: number(&row::FREQUENCY_PENALTY, default.frequency_penalty)?,
        presence_penalty: number(&row::PRESENCE_PENALTY, default.presence_penalty)?,
        temperature: number(&row::TEMPERATURE, default.temperature)?,
        top_p: number(&row::TOP_P, default.top_p)?,
        min_p: number(&row::MIN_P, default.min_p)?,
        typical_p: number(&row::TYPICAL_P, default.typical_p)?,
        logit_bias: logit_bias(fields)?,
        top_k: fields.count_or(&row::TOP_K, limits)?.flatten(),
        seed: seed(fields)?,
    })
}

/// OpenAI's seeds are signed; the engine's are the same 64 bits.
#[expect(clippy::cast_sign_loss, reason = "a seed is 64 bits, not a quantity")]
fn seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    fields.integer(&row::SEED, |seed| {
        seed.as_u64().or(seed.as_i64().map(|seed| seed as u64))
    })
}

#[expect(clippy::cast_possible_truncation, reason = "within the bounds of the row")]
fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let field = &row::LOGIT_BIAS;
    let (Some(map), Kind::PerToken(range)) = (fields.object(field)?, field.kind) else {
        return Ok(Vec::new());
    };
    let entry = |(token, bias): (String, Value)| {
        let number = bias.as_f64().filter(|&bias| range.contains(bias));
        let id = token.parse::<u32>();
        id.ok().zip(number.map(|number| number as f32)).ok_or_else(|| {
            let (least, most) = (range.least, range.most);
            let problem = format!(
                "has the entry {token:?}: {bias}, but must map token ids to numbers between {least} and {most}"
            );
            fields.complain(field, &problem)
        })
    };
    map.into_rest().into_iter().map(entry).collect()
}

fn stop(fields: &mut Fields, limits: &Limits) -> Result<Stop, ApiError> {
    let tokens = fields.list(row::STOP_TOKEN_IDS)?.unwrap_or_default();
    let tokens = tokens
        .iter()
        .map(|id| {
            whole(id)
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| fields.complain(row::STOP_TOKEN_IDS, "must be a list of token ids"))
        })
        .collect::<Result<_, _>>()?;
    let ignore_eos = fields.flag(row::IGNORE_EOS)?;
    let ignore_eos_token = fields.flag(row::IGNORE_EOS_TOKEN)?;
    Ok(Stop {
        min_tokens: fields.count(&row::MIN_TOKENS, limits)?.unwrap_or(0),
        strings: fields.strings(&row::STOP, limits)?,
        tokens,
        ignore_eos: ignore_eos.or(ignore_eos_token).unwrap_or(false),
        include_stop_string: fields.flag(row::INCLUDE_STOP_STR)?.unwrap_or(false),
    })
}

/// The newer name wins, as in OpenAI's API.
fn max_tokens(fields: &mut Fields, limits: &Limits) -> Result<Option<usize>, ApiError> {
    let older = fields.count(&row::MAX_TOKENS, limits)?;
    Ok(fields.count(&row::MAX_COMPLETION_TOKENS, limits)?.or(older))
}

/// The empty salt is refused, as in vLLM: clients that forgot to set theirs would share one
/// partition.
pub(super) fn tenant(fields: &mut Fields) -> Result<Option<Tenant>, ApiError> {
    match fields.string(row::CACHE_SALT)? {
        Some(salt) if salt.is_empty() => Err(fields.complain(row::CACHE_SALT, "is empty")),
        salt => Ok(salt.as_deref().map(Tenant::new)),
    }
}

/// As in vLLM, not for streams. More alternatives than the engine returns are refused.
fn prompt_logprobs(fields: &mut Fields, limits: &Limits, stream: bool) -> Result<Option<usize>, ApiError> {
    match fields.count(&row::PROMPT_LOGPROBS, limits)? {
        Some(_) if stream => {
            let problem = "is only given with answers in one piece, not in streams";
            Err(fields.complain(row::PROMPT_LOGPROBS, problem))
        }
        count => Ok(count),
    }
}

/// `stream_options`: whether a stream ends with the usage, and whether every chunk has it.
fn usage(fields: &mut Fields, stream: bool) -> Result<(bool, bool), ApiError> {
    let Some(mut options) = fields.object(row::STREAM_OPTIONS)? else {
        return Ok((false, false));
    };
    if !stream {
        return Err(fields.complain(row::STREAM_OPTIONS, "is only allowed with `stream`: true"));
    }
    let include = options.flag(row::INCLUDE_USAGE)?.unwrap_or(false);
    let continuous = options.flag(row::CONTINUOUS_USAGE_STATS)?.unwrap_or(false);
    options.drop_unsupported(Body::StreamOptions)?;
    options.finish()?;
    // As in vLLM, `continuous_usage_stats` without `include_usage` has no effect.
    Ok((include, include && continuous))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(json: &str) -> Result<Parameters, ApiError> {
        let mut fields = Fields::from_json(json.as_bytes())?;
        let parameters = Parameters::take(&mut fields, Body::Completion, &Limits::default())?;
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
}
