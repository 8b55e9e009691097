//! Compares results with the reference numbers.

use serde::Serialize;

use multigraft_model::drive::Outcome;

use super::reference::Expected;

/// The result of comparing one adapter (or the base) over all prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// The largest deviation of a logit when each prompt ran alone, as a fraction of the largest
    /// logit.
    pub alone: f32,
    /// The same when everything ran mixed in one batch.
    pub mixed: f32,
    /// Whether the greedy tokens are PEFT's, alone and mixed.
    pub greedy: bool,
    /// Whether mixed equals alone to the bit, in all logits and tokens.
    pub identical: bool,
}

impl Verdict {
    /// What deviates, if anything does.
    pub(crate) fn fault(&self, tolerance: f32) -> Option<&'static str> {
        // Written so that NaN is a deviation.
        let within = |deviation: f32| deviation <= tolerance;
        if !within(self.alone) || !within(self.mixed) {
            Some("logits deviate")
        } else if !self.greedy {
            Some("greedy tokens differ")
        } else if !self.identical {
            Some("mixed differs from alone")
        } else {
            None
        }
    }
}

/// Compares the outcomes of all prompts, alone and mixed, with the expected ones.
pub(crate) fn judge(expected: &[Expected], alone: &[Outcome], mixed: &[Outcome]) -> Verdict {
    let worst = |outcomes: &[Outcome]| {
        let deviations = expected
            .iter()
            .zip(outcomes)
            .map(|(expected, outcome)| deviation(&expected.logits, &outcome.logits));
        deviations.fold(0.0, larger)
    };
    let same_tokens = |outcomes: &[Outcome]| {
        expected
            .iter()
            .zip(outcomes)
            .all(|(expected, outcome)| expected.greedy == outcome.greedy)
    };
    Verdict {
        alone: worst(alone),
        mixed: worst(mixed),
        greedy: same_tokens(alone) && same_tokens(mixed),
        identical: alone.len() == mixed.len() && alone.iter().zip(mixed).all(|(a, b)| same_bits(a, b)),
    }
}

/// The largest difference over the largest expected value. `outcome` may have more rows than
/// expected.
fn deviation(expected: &[f32], outcome: &[f32]) -> f32 {
    if outcome.len() < expected.len() {
        return f32::NAN;
    }
    let scale = expected
        .iter()
        .fold(0.0, |scale, value| larger(scale, value.abs()));
    let difference = expected
        .iter()
        .zip(outcome)
        .fold(0.0, |worst, (expected, found)| {
            larger(worst, (expected - found).abs())
        });
    if difference == 0.0 {
        0.0
    } else {
        difference / scale
    }
}

/// The larger of two values; NaN if one of them is, so that NaN is not lost.
fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

fn same_bits(a: &Outcome, b: &Outcome) -> bool {
    a.greedy == b.greedy
        && a.logits.len() == b.logits.len()
        && a.logits
            .iter()
            .zip(&b.logits)
            .all(|(a, b)| a.to_bits() == b.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Vec<Expected> {
        vec![Expected {
            logits: vec![1.0, -10.0],
            vocab: 2,
            greedy: vec![0, 1],
        }]
    }

    fn outcome(logits: &[f32], greedy: &[u32]) -> Vec<Outcome> {
        vec![Outcome {
            logits: logits.to_vec(),
            greedy: greedy.to_vec(),
        }]
    }

    #[test]
    fn deviation_is_relative_to_the_largest_logit() {
        let good = outcome(&[1.0, -10.0, 5.0, 6.0], &[0, 1]);
        let off = outcome(&[1.001, -10.0, 5.0, 6.0], &[0, 1]);
        let verdict = judge(&expected(), &good, &off);
        assert_eq!(verdict.alone, 0.0);
        assert!((verdict.mixed - 1e-4).abs() < 1e-6, "{verdict:?}");
        assert!(!verdict.identical);
        assert_eq!(verdict.fault(2e-4), Some("mixed differs from alone"));
        assert_eq!(judge(&expected(), &good, &good).fault(2e-4), None);
    }

    #[test]
    fn other_tokens_and_missing_or_broken_numbers_are_faults() {
        let good = outcome(&[1.0, -10.0], &[0, 1]);
        for bad in [
            outcome(&[1.0, -10.0], &[0, 0]),
            outcome(&[f32::NAN, -10.0], &[0, 1]),
            outcome(&[1.0], &[0, 1]),
            outcome(&[2.0, -10.0], &[0, 1]),
        ] {
            assert!(judge(&expected(), &bad, &good).fault(2e-4).is_some(), "{bad:?}");
            assert!(judge(&expected(), &good, &bad).fault(2e-4).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn minus_zero_is_not_zero_to_the_bit() {
        let a = outcome(&[1.0, -10.0, 0.0, 1.0], &[0, 1]);
        let b = outcome(&[1.0, -10.0, -0.0, 1.0], &[0, 1]);
        assert!(!judge(&expected(), &a, &b).identical);
    }
}
