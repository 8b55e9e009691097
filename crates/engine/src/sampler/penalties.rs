//! Changes of single logits: penalties for tokens that occurred already, and the request's bias.

use std::collections::HashMap;

use crate::request::Sampling;

/// A sequence's penalties and bias, and the counts of tokens that these need.
#[derive(Debug)]
pub(crate) struct Penalties {
    repetition: f32,
    frequency: f32,
    presence: f32,
    bias: Vec<(u32, f32)>,
    /// How often each token occurs in the output; 0 for tokens that occur in the prompt alone.
    /// Empty without penalties.
    counts: HashMap<u32, u32>,
}

impl Penalties {
    pub(crate) fn new(sampling: &Sampling, prompt: &[u32]) -> Self {
        let mut penalties = Self {
            repetition: sampling.repetition_penalty,
            frequency: sampling.frequency_penalty,
            presence: sampling.presence_penalty,
            bias: sampling.logit_bias.clone(),
            counts: HashMap::new(),
        };
        if penalties.counts_matter() {
            penalties.counts = prompt.iter().map(|&id| (id, 0)).collect();
        }
        penalties
    }

    fn counts_matter(&self) -> bool {
        self.repetition != 1.0 || self.frequency != 0.0 || self.presence != 0.0
    }

    /// Whether all logits stay unchanged.
    pub(crate) fn change_nothing(&self) -> bool {
        !self.counts_matter() && self.bias.is_empty()
    }

    /// Counts a token of the output.
    pub(crate) fn note(&mut self, id: u32) {
        if self.counts_matter() {
            *self.counts.entry(id).or_default() += 1;
        }
    }

    /// The tokens whose logits change; some may occur twice.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = u32> {
        let biased = self.bias.iter().map(|&(id, _)| id);
        self.counts.keys().copied().chain(biased)
    }

    /// Changes the logits. Finite logits stay finite, whatever the parameters.
    pub(crate) fn apply(&self, logits: &mut [f32]) {
        // Each token is changed independently, so the order of the map does not matter.
        for (&id, &count) in &self.counts {
            let Some(logit) = logits.get_mut(id as usize) else {
                continue;
            };
            let repeated = if *logit < 0.0 {
                *logit * self.repetition
            } else {
                *logit / self.repetition
            };
            let present = if count > 0 { self.presence } else { 0.0 };
            *logit = finite(repeated) - self.frequency * count as f32 - present;
        }
        for &(id, bias) in &self.bias {
            let Some(logit) = logits.get_mut(id as usize) else {
                continue;
            };
            *logit = finite(*logit + bias);
        }
    }
}

/// Clamps a logit to the finite range.
fn finite(logit: f32) -> f32 {
    logit.clamp(f32::MIN, f32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(sampling: &Sampling, prompt: &[u32], output: &[u32], logits: &[f32]) -> Vec<f32> {
        let mut penalties = Penalties::new(sampling, prompt);
        output.iter().for_each(|&id| penalties.note(id));
        let mut logits = logits.to_vec();
        penalties.apply(&mut logits);
        logits
    }

    #[test]
    fn repetition_pushes_down_what_prompt_or_output_contain() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::default()
        };
        let logits = applied(&sampling, &[0, 1, 1], &[2, 2], &[4.0, -4.0, 6.0, 8.0]);
        assert_eq!(logits, [2.0, -8.0, 3.0, 8.0]);
    }

    #[test]
    fn frequency_counts_and_presence_does_not_and_neither_looks_at_the_prompt() {
        let sampling = Sampling {
            frequency_penalty: 0.5,
            presence_penalty: 1.0,
            ..Sampling::default()
        };
        let logits = applied(&sampling, &[0, 0], &[1, 2, 2, 2], &[1.0, 1.0, 1.0, 1.0]);
        assert_eq!(logits, [1.0, -0.5, -1.5, 1.0]);
    }

    #[test]
    fn repetition_comes_before_frequency_and_bias_is_last() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            frequency_penalty: 1.0,
            logit_bias: vec![(0, 10.0), (1, -100.0)],
            ..Sampling::default()
        };
        assert_eq!(applied(&sampling, &[], &[0], &[4.0, 1.0]), [11.0, -99.0]);
    }

    #[test]
    fn extreme_parameters_leave_logits_finite() {
        let sampling = Sampling {
            repetition_penalty: f32::MIN_POSITIVE,
            logit_bias: vec![(0, f32::MAX), (1, f32::MIN)],
            ..Sampling::default()
        };
        let logits = applied(&sampling, &[0, 1], &[], &[1e30, -1e30]);
        assert!(logits.iter().all(|logit| logit.is_finite()), "{logits:?}");
    }
}
