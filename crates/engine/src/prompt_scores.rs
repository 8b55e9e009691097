//! Log-probabilities of a prompt's tokens, collected chunk by chunk.

use crate::event::PromptToken;
use crate::sampler::Row;
use crate::sampler::logprobs::Logprobs;
use crate::vocabulary::Vocabulary;

/// The scores of tokens `1..=scores.len()`. Kept over a preemption, after which rows may be
/// computed again; those are ignored.
#[derive(Debug)]
pub(crate) struct PromptScores {
    top: usize,
    scores: Vec<Score>,
}

/// The likelihood of a token of the prompt.
#[derive(Debug)]
struct Score {
    logprob: f32,
    rank: usize,
    top: Vec<(u32, f32)>,
}

impl PromptScores {
    /// With the `top` likeliest tokens at each position.
    pub(crate) fn new(top: usize) -> Self {
        Self {
            top,
            scores: Vec::new(),
        }
    }

    /// Whether scores of a prompt of `prompt` tokens are missing.
    pub(crate) fn incomplete(&self, prompt: usize) -> bool {
        self.scores.len() + 1 < prompt
    }

    /// Takes the logits at `position`, which are about the token after it.
    pub(crate) fn take(&mut self, prompt: &[u32], position: usize, row: &Row<'_>) {
        if position != self.scores.len() {
            return;
        }
        if let Some(&next) = prompt.get(position + 1) {
            let logprobs = Logprobs::new(row);
            self.scores.push(Score {
                logprob: logprobs.logprob(next),
                rank: logprobs.rank(next),
                top: logprobs.top(self.top),
            });
        }
    }

    /// The prompt's tokens with their scores.
    pub(crate) fn finish(self, prompt: &[u32], vocabulary: &dyn Vocabulary) -> Vec<PromptToken> {
        let scores = std::iter::once(None).chain(self.scores.into_iter().map(Some));
        prompt
            .iter()
            .zip(scores)
            .map(|(&id, score)| PromptToken {
                id,
                text: vocabulary.token_text(id),
                logprob: score.as_ref().map(|score| score.logprob),
                rank: score.as_ref().map(|score| score.rank),
                top: score.map(|score| score.top).unwrap_or_default(),
            })
            .collect()
    }
}
