//! A request that is being served.

use std::time::Instant;

use multigraft_grammar::GrammarError;
use multigraft_model::{AdapterHash, BlockId, Wanted};

use crate::blocks::{BlockCopy, BlockPool, BlockTable};
use crate::client::{Client, State};
use crate::constraint::Workers;
use crate::embedding::Embedding;
use crate::event::{Event, Finish, FinishReason, RequestId, Timings};
use crate::fair::ShareId;
use crate::output::{Next, NoToken, Output};
use crate::prefix::Lineage;
use crate::prompt_scores::PromptScores;
use crate::request::AdapterUse;
use crate::sampler::{BadLogits, Row, Scratch};
use crate::submission::Submission;
use crate::vocabulary::Vocabulary;
use crate::waiting::Permit;

/// A prompt, the tokens generated after it, and how many of both the KV cache holds.
///
/// Prefill, decode and recomputation after a preemption are the same operation: positions
/// `computed..tokens.len()` are computed, and after the last of them the next token is sampled.
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    client: Client,
    adapter: Option<AdapterUse>,
    /// The position from which on the adapter applies.
    sets_in: usize,
    /// The share that it takes from.
    share: ShareId,
    weight: f32,
    priority: i64,
    /// The prompt, then the output.
    tokens: Vec<u32>,
    /// Length of the prompt.
    prompt: usize,
    max_tokens: usize,
    /// Number of positions whose keys and values are in the blocks.
    computed: usize,
    /// How many tokens of the prompt were found in the cache at the first admission.
    cached: Option<usize>,
    blocks: BlockTable,
    /// Its permit to wait, until it is started.
    permit: Option<Permit>,
    output: Output,
    /// Kept until they were sent.
    prompt_scores: Option<PromptScores>,
    /// Kept until it was sent.
    embedding: Option<Embedding>,
    times: Times,
}

/// When the request passed its phases.
#[derive(Clone, Copy, Debug)]
struct Times {
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

/// A step's outputs for one sequence, and what is needed to process them.
pub(crate) struct Outcome<'a> {
    /// Number of rows that were computed.
    pub(crate) rows: usize,
    /// Which outputs were wanted.
    pub(crate) wanted: Wanted,
    /// `[wanted, vocab]`.
    pub(crate) logits: &'a [f32],
    /// `[wanted, hidden]`.
    pub(crate) hidden: &'a [f32],
    pub(crate) now: Instant,
    pub(crate) vocabulary: &'a dyn Vocabulary,
    pub(crate) scratch: &'a mut Scratch,
}

impl Sequence {
    pub(crate) fn new(
        submission: Submission,
        pool: &BlockPool,
        vocabulary: &dyn Vocabulary,
        workers: &mut Option<Workers>,
    ) -> Self {
        let Submission {
            id,
            request,
            share,
            seed,
            client,
            permit,
            submitted,
        } = submission;
        let output = Output::new(&request, seed, vocabulary, workers);
        let used = request.adapter.as_ref();
        // A prompt without the invocation was refused.
        let sets_in = used
            .and_then(|used| used.adapter.sets_in(&request.prompt))
            .unwrap_or(0);
        let lineage = Lineage::new(used, sets_in, request.tenant);
        Self {
            id,
            client,
            adapter: request.adapter,
            sets_in,
            share,
            weight: request.weight,
            priority: request.priority,
            prompt: request.prompt.len(),
            max_tokens: request.max_tokens,
            computed: 0,
            cached: None,
            blocks: pool.table(lineage),
            permit: Some(permit),
            output,
            prompt_scores: request.prompt_logprobs.map(PromptScores::new),
            embedding: request.embedding.map(Embedding::new),
            tokens: request.prompt,
            times: Times {
                submitted,
                started: None,
                first_token: None,
            },
        }
    }

    /// The adapter of the next rows: none before the position from which on it applies.
    pub(crate) fn applied(&self) -> Option<&AdapterUse> {
        self.adapter.as_ref().filter(|_| self.computed >= self.sets_in)
    }

    /// The most rows of the next step, which do not cross the position from which on the adapter
    /// applies.
    pub(crate) fn most_rows(&self) -> usize {
        match self.sets_in.checked_sub(self.computed) {
            None | Some(0) => self.remaining(),
            Some(before) => self.remaining().min(before),
        }
    }

    pub(crate) fn adapter_hash(&self) -> Option<AdapterHash> {
        self.adapter.as_ref().map(AdapterUse::hash)
    }

    pub(crate) fn share(&self) -> ShareId {
        self.share
    }

    /// Whether it is served only while there are no other requests.
    pub(crate) fn is_background(&self) -> bool {
        self.share.background
    }

    /// The weight of its share.
    pub(crate) fn weight(&self) -> f32 {
        self.weight
    }

    /// Its priority among the waiting requests of its share; lower values come first.
    pub(crate) fn priority(&self) -> i64 {
        self.priority
    }

    /// The prompt and the output.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt
    }

    pub(crate) fn computed(&self) -> usize {
        self.computed
    }

    /// Number of rows to compute before the next token is sampled.
    pub(crate) fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub(crate) fn blocks(&self) -> &[BlockId] {
        self.blocks.blocks()
    }

    /// Takes blocks for all its tokens, sharing those of a cached prefix. Returns how many
    /// positions need not be computed, or `None`, without taking blocks, if fewer than `reserve`
    /// blocks would remain. `copy` copies blocks if the backend can.
    pub(crate) fn admit(&mut self, reserve: usize, copy: &mut dyn FnMut(BlockCopy) -> bool) -> Option<usize> {
        // The last row is always computed, because the next token is sampled from its logits.
        let reusable = if self.wants_scores() || self.wants_states() {
            0
        } else {
            self.tokens.len() - 1
        };
        let prefix = self.blocks.fill(&self.tokens, reusable, reserve)?;
        let copied = prefix.copy.filter(|&block| copy(block));
        self.computed = prefix.positions + copied.map_or(0, |block| block.positions);
        self.cached.get_or_insert(self.computed);
        Some(self.computed)
    }

    /// Takes a block for its last token, if it needs one. `false` if none is available.
    #[must_use]
    pub(crate) fn grow(&mut self) -> bool {
        self.blocks.grow(self.tokens.len())
    }

    /// Releases its blocks. Positions that the cache does not keep are computed again; tokens that
    /// were sent are not sent again.
    pub(crate) fn preempt(&mut self) {
        self.blocks.clear();
        self.computed = 0;
    }

    /// Whether the logits of every row are wanted in the next step, not only the last.
    pub(crate) fn wants_scores(&self) -> bool {
        self.prompt_scores
            .as_ref()
            .is_some_and(|scores| scores.incomplete(self.prompt))
    }

    /// Whether the hidden state of every row is wanted.
    fn wants_states(&self) -> bool {
        self.embedding.as_ref().is_some_and(Embedding::of_every_row)
    }

    /// Which outputs of the next `rows` rows are wanted.
    pub(crate) fn wanted(&self, rows: usize) -> Wanted {
        if self.wants_scores() {
            Wanted::All
        } else if self.wants_states() || (self.embedding.is_some() && rows == self.remaining()) {
            Wanted::Hidden
        } else if rows == self.remaining() && self.max_tokens > 0 {
            Wanted::Last
        } else {
            Wanted::None
        }
    }

    /// Whether it was ever admitted.
    pub(crate) fn was_started(&self) -> bool {
        self.times.started.is_some()
    }

    /// Notes that its computation begins. Returns whether it begins for the first time.
    pub(crate) fn start(&mut self, now: Instant) -> bool {
        if let Some(permit) = self.permit.take() {
            permit.start();
        }
        if self.was_started() {
            return false;
        }
        self.times.started = Some(now);
        self.client.send(Event::Started {
            queue_time: now - self.times.submitted,
        });
        true
    }

    /// Checks whether its client hung up.
    pub(crate) fn poll_client(&mut self) {
        self.client.poll();
    }

    pub(crate) fn state(&self) -> State {
        self.client.state()
    }

    /// Ends the request with an error.
    pub(crate) fn fail(&mut self, reason: &str) {
        tracing::warn!(request = %self.id, "failed: {reason}");
        self.client.send(Event::Failed(reason.to_owned()));
    }

    /// Ends the request because it asks for too much.
    fn refuse(&mut self, reason: &str) {
        tracing::info!(request = %self.id, "refused: {reason}");
        self.client.send(Event::Refused(reason.to_owned()));
    }

    /// Ends the request because another caller cancelled it.
    pub(crate) fn cancel(&mut self, reason: &str) {
        tracing::info!(request = %self.id, "cancelled: {reason}");
        self.client.send(Event::Cancelled(reason.to_owned()));
    }

    /// Processes a step's outputs: scores of the prompt, and the next token if all rows are
    /// computed. Returns whether a token was generated.
    pub(crate) fn advance(&mut self, outcome: Outcome<'_>) -> bool {
        match self.try_advance(outcome) {
            Ok(generated) => generated,
            Err(reason) => {
                match reason {
                    NoToken::Logits(bad) => {
                        self.fail(&format!("the logits of {} are broken: {bad}", self.model()));
                    }
                    NoToken::State(bad) => {
                        self.fail(&format!("the embedding by {} is broken: {bad}", self.model()));
                    }
                    NoToken::Grammar(error @ GrammarError::TooComplex(_)) => self.refuse(&error.to_string()),
                    constraint => self.fail(&constraint.to_string()),
                }
                false
            }
        }
    }

    /// The adapter or the base, for messages.
    fn model(&self) -> String {
        match self.adapter_hash() {
            Some(hash) => format!("adapter {hash}"),
            None => "the base model".to_owned(),
        }
    }

    fn try_advance(&mut self, outcome: Outcome<'_>) -> Result<bool, NoToken> {
        let Outcome {
            rows,
            wanted,
            logits,
            hidden,
            now,
            vocabulary,
            scratch,
        } = outcome;
        let first = self.computed;
        self.computed += rows;
        let vocab = logits.len() / wanted.logits(rows).max(1);
        if let Some(embedding) = &mut self.embedding
            && wanted == Wanted::Hidden
        {
            let width = hidden.len() / rows.max(1);
            for (offset, state) in hidden.chunks_exact(width.max(1)).enumerate() {
                embedding.take(first + offset, state)?;
            }
        }
        let mut last = None;
        for (offset, row) in logits.chunks_exact(vocab.max(1)).enumerate() {
            let row = Row::new(row)?;
            if wanted == Wanted::All
                && let Some(scores) = &mut self.prompt_scores
            {
                scores.take(&self.tokens[..self.prompt], first + offset, &row);
            }
            last = Some(row);
        }
        self.blocks.share(&self.tokens[..self.computed]);
        if self.remaining() > 0 {
            return Ok(false);
        }
        if let Some(scores) = self.prompt_scores.take() {
            let prompt = scores.finish(&self.tokens[..self.prompt], vocabulary);
            self.client.send(Event::Prompt(prompt));
        }
        if let Some(embedding) = self.embedding.take() {
            self.client.send(Event::Embedding(embedding.finish()));
        }
        self.times.first_token.get_or_insert(now);
        if self.max_tokens == 0 {
            self.finish(FinishReason::Length, now);
            return Ok(false);
        }
        let Some(row) = last else {
            return Err(BadLogits::Nothing.into());
        };
        let nth = self.tokens.len() - self.prompt;
        let (token, end) = match self.output.next(nth, &row, vocabulary, scratch)? {
            Next::Token(token, end) => (token, end),
            Next::Complete => {
                self.finish(FinishReason::Complete, now);
                return Ok(false);
            }
        };
        self.tokens.push(token.id);
        self.client.send(Event::Token(token));
        let full = (nth + 1 == self.max_tokens).then_some(FinishReason::Length);
        if let Some(reason) = end.or(full) {
            self.finish(reason, now);
        }
        Ok(true)
    }

    fn finish(&mut self, reason: FinishReason, now: Instant) {
        let completion_tokens = self.tokens.len() - self.prompt;
        let (text, reason) = self.output.finish(reason, completion_tokens);
        self.client.send(Event::Finished(Finish {
            reason,
            text,
            prompt_tokens: self.prompt,
            cached_tokens: self.cached.unwrap_or_default(),
            completion_tokens,
            seed: self.output.seed(),
            timings: self.times.timings(now),
        }));
    }
}

impl Times {
    fn timings(&self, now: Instant) -> Timings {
        let started = self.started.unwrap_or(now);
        let first_token = self.first_token.unwrap_or(now);
        Timings {
            queue: started - self.submitted,
            prefill: first_token - started,
            decode: now - first_token,
        }
    }
}
