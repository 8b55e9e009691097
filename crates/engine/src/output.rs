//! From logits to what the client reads: tokens, their text, and the end.

use crate::event::{FinishReason, Token};
use crate::request::{Request, Stop};
use crate::sampler::logprobs::Logprobs;
use crate::sampler::{Row, Sampler, Scratch};
use crate::stop::Stopped;
use crate::transcript::Transcript;
use crate::vocabulary::Vocabulary;

/// The output of one request.
pub(crate) struct Output {
    sampler: Sampler,
    transcript: Transcript,
    logprobs: Option<usize>,
    stop_tokens: Vec<u32>,
    ignore_eos: bool,
    include_stop: bool,
}

impl Output {
    /// An output that has no tokens yet.
    pub(crate) fn new(request: &Request, seed: u64, vocabulary: &dyn Vocabulary) -> Self {
        let stop: &Stop = &request.stop;
        Self {
            sampler: Sampler::new(request.sampling.clone(), seed, &request.prompt),
            transcript: Transcript::new(vocabulary.decoder(), stop),
            logprobs: request.logprobs,
            stop_tokens: stop.tokens.clone(),
            ignore_eos: stop.ignore_eos,
            include_stop: stop.include_stop_string,
        }
    }

    /// The seed of its draws.
    pub(crate) fn seed(&self) -> u64 {
        self.sampler.seed()
    }

    /// Its `nth` token, from 0, and why it is the last, if it is.
    pub(crate) fn next(
        &mut self,
        nth: usize,
        row: &Row<'_>,
        vocabulary: &dyn Vocabulary,
        scratch: &mut Scratch,
    ) -> (Token, Option<FinishReason>) {
        let id = self.sampler.choose(nth, row, scratch);
        self.sampler.note(id);
        let (logprob, top) = match self.logprobs {
            Some(n) => {
                let logprobs = Logprobs::new(row);
                (Some(logprobs.of(id)), logprobs.top(n))
            }
            None => (None, Vec::new()),
        };
        let mut end = self.ends_with(id, vocabulary);
        let mut text = String::new();
        // What only says that the output ends is not part of its text.
        if end.is_none() || self.include_stop {
            match self.transcript.push(id) {
                Ok(certain) => text = certain,
                Err(stopped) => {
                    text = stopped.text;
                    end = Some(FinishReason::StopString(stopped.stop));
                }
            }
        }
        let special = vocabulary.is_special(id);
        (
            Token {
                id,
                text,
                logprob,
                top,
                special,
            },
            end,
        )
    }

    /// Whether token `id` ends the output.
    fn ends_with(&self, id: u32, vocabulary: &dyn Vocabulary) -> Option<FinishReason> {
        if self.stop_tokens.contains(&id) {
            Some(FinishReason::StopToken(id))
        } else if !self.ignore_eos && vocabulary.eos().contains(&id) {
            Some(FinishReason::Eos(id))
        } else {
            None
        }
    }

    /// The text that was held back, at the end. If a stop string is in it, that is why the output ended.
    pub(crate) fn finish(&mut self, reason: FinishReason) -> (String, FinishReason) {
        if matches!(reason, FinishReason::StopString(_)) {
            return (String::new(), reason);
        }
        match self.transcript.finish() {
            Ok(text) => (text, reason),
            Err(Stopped { text, stop }) => (text, FinishReason::StopString(stop)),
        }
    }
}
