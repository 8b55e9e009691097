//! Requests and their parameters.

use std::sync::Arc;

use multigraft_grammar::Grammar;
use multigraft_model::{AdapterHash, ReadyAdapter};

use crate::embedding::Pooling;
use crate::error::{SamplingError, SubmitError};
use crate::fair::ShareId;
use crate::limits::{EngineLimits, MAX_LOGPROBS, MAX_STOP_BYTES, MAX_STOPS, WEIGHTS};
use crate::tenant::Tenant;

/// An adapter as a request uses it.
#[derive(Clone, Debug)]
pub struct AdapterUse {
    /// The adapter.
    pub adapter: Arc<ReadyAdapter>,
    /// Factor of the adapter's updates, finite: 1 applies it as trained, 0 answers as the base
    /// does. Adapters with parts that no scale multiplies accept only 1
    /// ([`ReadyAdapter::unscalable`]).
    pub scale: f32,
}

impl AdapterUse {
    pub(crate) fn hash(&self) -> AdapterHash {
        self.adapter.hash()
    }

    /// Refuses a scale that the adapter does not support.
    ///
    /// # Errors
    /// If the scale is not finite, or is not 1 although the adapter has parts that no scale
    /// multiplies.
    pub fn check(&self) -> Result<(), SubmitError> {
        let scale = self.scale;
        if !scale.is_finite() {
            return Err(SubmitError::Scale { scale });
        }
        match self.adapter.unscalable() {
            Some(what) if scale != 1.0 => Err(SubmitError::Unscalable { scale, what }),
            _ => Ok(()),
        }
    }
}

impl From<Arc<ReadyAdapter>> for AdapterUse {
    /// The adapter as it was trained, at scale 1.
    fn from(adapter: Arc<ReadyAdapter>) -> Self {
        Self { adapter, scale: 1.0 }
    }
}

/// A prompt, and how to continue it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt's tokens, at least one.
    pub prompt: Vec<u32>,
    /// The adapter; `None` is the base model. An activated LoRA applies from where the prompt
    /// invokes it.
    pub adapter: Option<AdapterUse>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// What ends the output early.
    pub stop: Stop,
    /// The grammar of the whole output. The output ends when it is complete and no token may
    /// follow; end tokens are chosen only where the output may end. `max_tokens` and stops can cut
    /// it off earlier.
    pub grammar: Option<Grammar>,
    /// The most tokens to generate. 0 computes only the prompt, for its log-probabilities.
    pub max_tokens: usize,
    /// `Some(n)`: every token comes with its log-probability and with the `n` likeliest tokens, `n`
    /// in 0..=20.
    ///
    /// Log-probabilities are the log-softmax of the model's logits, before penalties, bias,
    /// temperature and filters.
    pub logprobs: Option<usize>,
    /// The same for the prompt's tokens, which then arrive in an
    /// [`Event::Prompt`](crate::Event::Prompt).
    pub prompt_logprobs: Option<usize>,
    /// Whether the output's text includes special tokens, such as those that mark turns. A token
    /// that ends the output is included only with [`Stop::include_stop_string`].
    pub show_special: bool,
    /// Order among the waiting requests of a share: the lowest value starts first, of equal values
    /// the earliest request. It has no effect on other shares.
    pub priority: i64,
    /// Computes the prompt's embedding, which arrives in an
    /// [`Event::Embedding`](crate::Event::Embedding), and nothing else: `max_tokens` is 0 and there
    /// are no log-probabilities.
    pub embedding: Option<Pooling>,
    /// The tenant with whose requests it shares cached prefixes. `None` shares with all requests
    /// that name no tenant.
    pub tenant: Option<Tenant>,
    /// The tenant whose share it takes from, if that is not `tenant`: parts of one tenant
    /// (`cache_salt`) have one share.
    pub payer: Option<Tenant>,
    /// Weight of its share (its adapter and tenant) under load: twice the weight gets twice the
    /// tokens. Within [`WEIGHTS`]; the newest request of a share sets its weight.
    pub weight: f32,
}

impl Request {
    /// At most `max_tokens` tokens from the base model, sampled from its own distribution.
    pub fn new(prompt: Vec<u32>, max_tokens: usize) -> Self {
        Self {
            prompt,
            adapter: None,
            sampling: Sampling::default(),
            stop: Stop::default(),
            grammar: None,
            max_tokens,
            logprobs: None,
            prompt_logprobs: None,
            show_special: false,
            priority: 0,
            embedding: None,
            tenant: None,
            payer: None,
            weight: 1.0,
        }
    }

    /// The embedding of a prompt by the base model.
    pub fn embedding(prompt: Vec<u32>, pooling: Pooling) -> Self {
        Self {
            embedding: Some(pooling),
            ..Self::new(prompt, 0)
        }
    }

    /// The share that it takes from.
    pub(crate) fn share(&self, background: bool) -> ShareId {
        ShareId {
            background,
            adapter: self.adapter.as_ref().map(AdapterUse::hash),
            tenant: self.payer.or(self.tenant),
        }
    }

    /// Refuses a request that can never be served within `limits`, so that every accepted request
    /// can be completed.
    ///
    /// # Errors
    /// The first problem, with its numbers.
    pub fn check(&self, limits: &EngineLimits) -> Result<(), SubmitError> {
        let (prompt, max_tokens) = (self.prompt.len(), self.max_tokens);
        if prompt == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if let Some((index, &id)) = self
            .prompt
            .iter()
            .enumerate()
            .find(|&(_, &id)| id as usize >= limits.vocab)
        {
            return Err(SubmitError::UnknownToken {
                index,
                id,
                vocab: limits.vocab,
            });
        }
        limits.check_room(prompt, max_tokens)?;
        if self.stop.min_tokens > max_tokens {
            return Err(SubmitError::MinTokens {
                min_tokens: self.stop.min_tokens,
                max_tokens,
            });
        }
        if self.embedding.is_some() && (max_tokens > 0 || self.prompt_logprobs.is_some()) {
            return Err(SubmitError::MoreThanEmbedding);
        }
        if !WEIGHTS.contains(&self.weight) {
            return Err(SubmitError::Weight { weight: self.weight });
        }
        if let Some(used) = &self.adapter {
            used.check()?;
            if used.adapter.sets_in(&self.prompt).is_none() {
                let tokens = used.adapter.invocation().to_vec();
                return Err(SubmitError::NotInvoked { tokens });
            }
        }
        for (field, asked) in [
            ("logprobs", self.logprobs),
            ("prompt_logprobs", self.prompt_logprobs),
        ] {
            if let Some(asked) = asked.filter(|&asked| asked > MAX_LOGPROBS) {
                return Err(SubmitError::TooManyLogprobs { field, asked });
            }
        }
        if self.stop.strings.iter().any(String::is_empty) {
            return Err(SubmitError::EmptyStopString);
        }
        if let Some(long) = self.stop.strings.iter().find(|stop| stop.len() > MAX_STOP_BYTES) {
            return Err(SubmitError::StopStringTooLong {
                bytes: long.len(),
                limit: MAX_STOP_BYTES,
            });
        }
        let stops = self.stop.strings.len().max(self.stop.tokens.len());
        if stops > MAX_STOPS {
            return Err(SubmitError::TooManyStops {
                count: stops,
                limit: MAX_STOPS,
            });
        }
        self.sampling.validate()?;
        if let Some(&(id, _)) = self
            .sampling
            .logit_bias
            .iter()
            .find(|&&(id, _)| id as usize >= limits.vocab)
        {
            return Err(SubmitError::UnknownBiasToken {
                id,
                vocab: limits.vocab,
            });
        }
        Ok(())
    }
}

impl EngineLimits {
    /// Refuses a sequence of so many tokens if it can never run.
    ///
    /// # Errors
    /// If it is longer than the context or than the whole KV cache.
    pub fn check_room(&self, prompt: usize, max_tokens: usize) -> Result<(), SubmitError> {
        let total = prompt.saturating_add(max_tokens);
        if total > self.context {
            return Err(SubmitError::TooLongForContext {
                prompt,
                max_tokens,
                context: self.context,
            });
        }
        if total > self.cache_tokens {
            return Err(SubmitError::TooLongForCache {
                prompt,
                max_tokens,
                cache: self.cache_tokens,
            });
        }
        Ok(())
    }
}

/// How the next token is chosen from the model's logits.
///
/// Applied in the order of the fields, which is that of Hugging Face transformers: penalties and
/// bias change logits; temperature scales them; `top_k`, `top_p`, `min_p` and `typical_p` each
/// filter the candidates that the previous filter left; one of the rest is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides positive and multiplies negative logits of every token that the prompt or the output
    /// contains (Keskar et al. 2019, arXiv 1909.05858). Above 0; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit once per occurrence in the output. -2..=2.
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit if the output contains it. -2..=2.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens. Finite.
    pub logit_bias: Vec<(u32, f32)>,
    /// Divides the logits; 0 takes the likeliest token (of equals the lowest id) and ignores the
    /// parameters below. At least 0.
    pub temperature: f32,
    /// Keeps the `k` likeliest tokens, and tokens as likely as the last of these. At least 1.
    pub top_k: Option<usize>,
    /// Keeps the likeliest tokens that together have at least this probability. 0..=1; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the likeliest. 0..=1; 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens whose information content is nearest to the expected one and that together
    /// have at least this probability (Meister et al. 2022, arXiv 2202.00666). Above 0, at most 1;
    /// 1 keeps all.
    pub typical_p: f32,
    /// Makes the draws repeatable. `None`: a random seed, reported in
    /// [`Finish::seed`](crate::Finish::seed).
    pub seed: Option<u64>,
}

impl Default for Sampling {
    /// Samples from the model's own distribution.
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            temperature: 1.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            seed: None,
        }
    }
}

impl Sampling {
    /// Always takes the likeliest token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }

    /// Checks that every field is in its range.
    ///
    /// # Errors
    /// The first field that is out of range, with its value and range.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let error = |field, value: f32, range| {
            Err(SamplingError {
                field,
                value: value.to_string(),
                range,
            })
        };
        // Written such that NaN fails every comparison and is refused.
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return error("repetition_penalty", self.repetition_penalty, "above 0");
        }
        for (field, value) in [
            ("frequency_penalty", self.frequency_penalty),
            ("presence_penalty", self.presence_penalty),
        ] {
            if !(-2.0..=2.0).contains(&value) {
                return error(field, value, "-2 to 2");
            }
        }
        if let Some(&(_, bias)) = self.logit_bias.iter().find(|(_, bias)| !bias.is_finite()) {
            return error("logit_bias", bias, "finite");
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return error("temperature", self.temperature, "0 or more");
        }
        if self.top_k == Some(0) {
            return Err(SamplingError {
                field: "top_k",
                value: "0".to_owned(),
                range: "1 or more",
            });
        }
        for (field, value) in [("top_p", self.top_p), ("min_p", self.min_p)] {
            if !(0.0..=1.0).contains(&value) {
                return error(field, value, "0 to 1");
            }
        }
        if !(self.typical_p > 0.0 && self.typical_p <= 1.0) {
            return error("typical_p", self.typical_p, "above 0, at most 1");
        }
        Ok(())
    }
}

/// Conditions that end the output before `max_tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// Texts that end the output, also across token boundaries. Of several, the one that is
    /// complete first counts.
    pub strings: Vec<String>,
    /// Tokens that end the output, besides the model's own.
    pub tokens: Vec<u32>,
    /// Whether to continue after the model's own end tokens.
    pub ignore_eos: bool,
    /// Whether the output's text includes the stop string, or the text of the token, that ended it.
    pub include_stop_string: bool,
    /// The output does not end by these conditions before it has so many tokens: end and stop
    /// tokens are not chosen, and a stop string that is complete by then does not count. The output
    /// ends earlier if no other token can be chosen, as under a complete grammar. At most
    /// `max_tokens`.
    pub min_tokens: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> EngineLimits {
        EngineLimits {
            vocab: 100,
            context: 64,
            cache_tokens: 48,
            block_tokens: 16,
            step_tokens: 8,
            max_running: 4,
            max_waiting: 4,
            prefix_cache: true,
        }
    }

    fn refusal(change: impl FnOnce(&mut Request)) -> String {
        let mut request = Request::new(vec![1, 2, 3], 10);
        change(&mut request);
        request.check(&limits()).unwrap_err().to_string()
    }

    #[test]
    fn a_plain_request_is_accepted() {
        assert!(Request::new(vec![99], 47).check(&limits()).is_ok());
        assert!(Request::new(vec![0; 48], 0).check(&limits()).is_ok());
    }

    #[test]
    fn scales_are_numbers() {
        for scale in [f32::NAN, f32::INFINITY] {
            let adapter = Arc::new(ReadyAdapter::new(AdapterHash([1; 32]), 0, Arc::new(())));
            let refused = refusal(|r| r.adapter = Some(AdapterUse { adapter, scale }));
            assert_eq!(
                refused,
                format!("the adapter's scale is {scale}, but has to be a finite number")
            );
        }
    }

    #[test]
    fn stops_are_few_and_short() {
        let long = "x".repeat(MAX_STOP_BYTES + 1);
        assert_eq!(
            refusal(|r| r.stop.strings = vec![long]),
            "a stop string has 1025 bytes, but may have at most 1024"
        );
        assert_eq!(
            refusal(|r| r.stop.tokens = vec![1; MAX_STOPS + 1]),
            "there are 129 stop strings or stop tokens, but may be at most 128"
        );
    }

    #[test]
    fn an_embedding_is_all_that_is_computed() {
        let embedding = Request::embedding(vec![1, 2], Pooling::Mean);
        assert!(embedding.check(&limits()).is_ok());
        let more: [fn(&mut Request); 2] = [|r| r.max_tokens = 1, |r| r.prompt_logprobs = Some(0)];
        for more in more {
            let mut request = embedding.clone();
            more(&mut request);
            assert_eq!(request.check(&limits()), Err(SubmitError::MoreThanEmbedding));
        }
    }

    #[test]
    fn refusals_name_the_numbers() {
        assert_eq!(
            refusal(|r| r.max_tokens = 62),
            "prompt (3 tokens) and max_tokens (62) together exceed the model's context of 64 tokens"
        );
        assert_eq!(
            refusal(|r| r.max_tokens = 46),
            "prompt (3 tokens) and max_tokens (46) together exceed the KV cache, which holds 48 tokens"
        );
        assert_eq!(
            refusal(|r| r.max_tokens = usize::MAX).split(" together ").count(),
            2
        );
        assert_eq!(
            refusal(|r| r.stop.min_tokens = 11),
            "min_tokens is 11, but max_tokens is 10: an answer cannot be both"
        );
        assert_eq!(refusal(|r| r.prompt.clear()), "the prompt has no tokens");
        assert_eq!(
            refusal(|r| r.prompt[1] = 100),
            "token 1 of the prompt is 100, but the vocabulary has 100 tokens (0 to 99)"
        );
        assert_eq!(
            refusal(|r| r.logprobs = Some(21)),
            "logprobs is 21, but at most 20 can be given"
        );
        assert_eq!(
            refusal(|r| r.prompt_logprobs = Some(50)),
            "prompt_logprobs is 50, but at most 20 can be given"
        );
        assert_eq!(
            refusal(|r| r.stop.strings.push(String::new())),
            "a stop string is empty"
        );
        assert_eq!(
            refusal(|r| r.sampling.logit_bias.push((100, 1.0))),
            "logit_bias names token 100, but the vocabulary has 100 tokens (0 to 99)"
        );
    }

    #[test]
    fn sampling_out_of_range_names_field_value_and_range() {
        let refused = |change: fn(&mut Sampling)| refusal(|r| change(&mut r.sampling));
        assert_eq!(
            refused(|s| s.temperature = -1.0),
            "temperature is -1, but has to be 0 or more"
        );
        assert_eq!(
            refused(|s| s.top_k = Some(0)),
            "top_k is 0, but has to be 1 or more"
        );
        assert_eq!(refused(|s| s.top_p = 1.5), "top_p is 1.5, but has to be 0 to 1");
        assert_eq!(refused(|s| s.min_p = -0.5), "min_p is -0.5, but has to be 0 to 1");
        assert_eq!(
            refused(|s| s.typical_p = 0.0),
            "typical_p is 0, but has to be above 0, at most 1"
        );
        assert_eq!(
            refused(|s| s.repetition_penalty = 0.0),
            "repetition_penalty is 0, but has to be above 0"
        );
        assert_eq!(
            refused(|s| s.frequency_penalty = 2.5),
            "frequency_penalty is 2.5, but has to be -2 to 2"
        );
        assert_eq!(
            refused(|s| s.presence_penalty = -3.0),
            "presence_penalty is -3, but has to be -2 to 2"
        );
        assert_eq!(
            refused(|s| s.logit_bias.push((1, f32::INFINITY))),
            "logit_bias is inf, but has to be finite"
        );
    }

    #[test]
    fn nan_is_in_no_range() {
        let set: [fn(&mut Sampling); 8] = [
            |s| s.temperature = f32::NAN,
            |s| s.top_p = f32::NAN,
            |s| s.min_p = f32::NAN,
            |s| s.typical_p = f32::NAN,
            |s| s.repetition_penalty = f32::NAN,
            |s| s.frequency_penalty = f32::NAN,
            |s| s.presence_penalty = f32::NAN,
            |s| s.logit_bias.push((1, f32::NAN)),
        ];
        for set in set {
            let mut sampling = Sampling::default();
            set(&mut sampling);
            assert!(sampling.validate().is_err(), "{sampling:?}");
        }
    }
}
