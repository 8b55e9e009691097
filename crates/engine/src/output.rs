//! A request's output: from logits to tokens, their text, and the end.

use multigraft_grammar::GrammarError;

use crate::constraint::{Constraint, Workers};
use crate::embedding::BadState;
use crate::event::{FinishReason, Token};
use crate::request::{Request, Stop};
use crate::sampler::logprobs::Logprobs;
use crate::sampler::{BadLogits, Row, Sampler, Scratch};
use crate::stop::Stopped;
use crate::transcript::Transcript;
use crate::vocabulary::Vocabulary;

/// The output of one request.
pub(crate) struct Output {
    sampler: Sampler,
    constraint: Option<Constraint>,
    transcript: Transcript,
    logprobs: Option<usize>,
    stop_tokens: Vec<u32>,
    ignore_eos: bool,
    include_stop: bool,
    /// The output does not end before it has so many tokens.
    min_tokens: usize,
    /// Tokens that are not chosen before that; empty if `min_tokens` is 0.
    barred: Vec<u32>,
}

/// Why no token could be chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoToken {
    #[error(transparent)]
    Logits(#[from] BadLogits),
    #[error(transparent)]
    State(#[from] BadState),
    #[error(transparent)]
    Grammar(#[from] GrammarError),
    #[error("no token that the answer's constraint allows can be chosen")]
    NothingAllowed,
}

/// The next token.
#[derive(Debug)]
pub(crate) enum Next {
    /// A token, and why the output ends with it, if it does.
    Token(Token, Option<FinishReason>),
    /// The grammar is complete and allows no further token.
    Complete,
}

impl Output {
    /// An empty output.
    pub(crate) fn new(
        request: &Request,
        seed: u64,
        vocabulary: &dyn Vocabulary,
        workers: &mut Option<Workers>,
    ) -> Self {
        let stop: &Stop = &request.stop;
        let grammar = request.grammar.clone();
        let mut barred = Vec::new();
        if stop.min_tokens > 0 {
            barred.extend(&stop.tokens);
            let eos = vocabulary.eos().iter();
            barred.extend(eos.filter(|_| !stop.ignore_eos));
        }
        Self {
            sampler: Sampler::new(request.sampling.clone(), seed, &request.prompt),
            constraint: grammar
                .map(|grammar| Constraint::new(grammar, workers.get_or_insert_with(Workers::start))),
            transcript: Transcript::new(vocabulary.decoder(request.show_special), stop),
            logprobs: request.logprobs,
            stop_tokens: stop.tokens.clone(),
            ignore_eos: stop.ignore_eos,
            include_stop: stop.include_stop_string,
            min_tokens: stop.min_tokens,
            barred,
        }
    }

    /// The seed of the draws.
    pub(crate) fn seed(&self) -> u64 {
        self.sampler.seed()
    }

    /// Chooses the `nth` token of the output, from 0.
    ///
    /// # Errors
    /// If none can be chosen.
    pub(crate) fn next(
        &mut self,
        nth: usize,
        row: &Row<'_>,
        vocabulary: &dyn Vocabulary,
        scratch: &mut Scratch,
    ) -> Result<Next, NoToken> {
        let allowed = match &mut self.constraint {
            None => None,
            Some(constraint) => match constraint.allowed()? {
                None => return Ok(Next::Complete),
                allowed => allowed,
            },
        };
        let early = nth < self.min_tokens;
        let barred = if early { self.barred.as_slice() } else { &[] };
        let chosen = self.sampler.choose_within(allowed, barred, nth, row, scratch);
        let id = chosen.ok_or(NoToken::NothingAllowed)?;
        self.sampler.note(id);
        let (logprob, top) = match self.logprobs {
            Some(n) => {
                let logprobs = Logprobs::new(row);
                (Some(logprobs.logprob(id)), logprobs.top(n))
            }
            None => (None, Vec::new()),
        };
        let mut end = self.ends_with(id, vocabulary);
        if let Some(constraint) = self.constraint.as_mut().filter(|_| end.is_none()) {
            constraint.follow(id);
        }
        let mut text = String::new();
        // A token that ends the output is not part of its text unless that was requested.
        if end.is_none() || self.include_stop {
            match self.transcript.push(id, early) {
                Ok(certain) => text = certain,
                Err(stopped) => {
                    text = stopped.text;
                    end = Some(FinishReason::StopString(stopped.stop));
                }
            }
        }
        let special = vocabulary.is_special(id);
        let token = Token {
            id,
            text,
            logprob,
            top,
            special,
        };
        Ok(Next::Token(token, end))
    }

    /// Why token `id` ends the output, if it does.
    fn ends_with(&self, id: u32, vocabulary: &dyn Vocabulary) -> Option<FinishReason> {
        if self.stop_tokens.contains(&id) {
            Some(FinishReason::StopToken(id))
        } else if !self.ignore_eos && vocabulary.eos().contains(&id) {
            Some(FinishReason::Eos(id))
        } else {
            None
        }
    }

    /// Returns the text that is still held back after `tokens` tokens, and the reason for the end:
    /// a stop string, if one is complete in that text, or else `reason`.
    pub(crate) fn finish(&mut self, reason: FinishReason, tokens: usize) -> (String, FinishReason) {
        if matches!(reason, FinishReason::StopString(_)) {
            return (String::new(), reason);
        }
        match self.transcript.finish(tokens <= self.min_tokens) {
            Ok(text) => (text, reason),
            Err(Stopped { text, stop }) => (text, FinishReason::StopString(stop)),
        }
    }
}
