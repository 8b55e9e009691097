//! Merges one tensor of several adapters, with the formulas of PEFT's `merge_utils` in their order
//! of operations.

use multigraft_model::{AdapterHash, Matrix};
use sha2::{Digest, Sha256};

use super::{MajoritySign, MergeMethod};

pub(super) fn matrix(rows: usize, cols: usize, values: Vec<f32>) -> Matrix {
    Matrix { rows, cols, values }
}

/// Merges weighted tensors of equal length.
pub(super) fn combine(
    method: MergeMethod,
    tensors: &[&[f32]],
    weights: &[f32],
    random: &mut Random,
) -> Vec<f32> {
    match method {
        MergeMethod::Sum | MergeMethod::Linear => weighted_sum(tensors, weights),
        MergeMethod::Ties { density, majority } => {
            let pruned = tensors.iter().map(|tensor| largest(tensor, density));
            elect(&pruned.collect::<Vec<_>>(), weights, majority)
        }
        MergeMethod::DareLinear { density } => {
            let pruned: Vec<Vec<f32>> = tensors
                .iter()
                .map(|tensor| dropped(tensor, density, random))
                .collect();
            let pruned: Vec<&[f32]> = pruned.iter().map(Vec::as_slice).collect();
            weighted_sum(&pruned, weights)
        }
        MergeMethod::DareTies { density, majority } => {
            let pruned = tensors.iter().map(|tensor| dropped(tensor, density, random));
            elect(&pruned.collect::<Vec<_>>(), weights, majority)
        }
    }
}

fn weighted_sum(tensors: &[&[f32]], weights: &[f32]) -> Vec<f32> {
    let mut sum = vec![0.0; tensors[0].len()];
    for (tensor, weight) in tensors.iter().zip(weights) {
        sum.iter_mut()
            .zip(*tensor)
            .for_each(|(sum, value)| *sum += weight * value);
    }
    sum
}

/// Keeps the fraction `density` of a tensor's values, the largest by magnitude, and sets the others
/// to 0. Among equal values, the first are kept.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "at most the tensor's length, rounded down as in PEFT"
)]
fn largest(tensor: &[f32], density: f64) -> Vec<f32> {
    if density >= 1.0 {
        return tensor.to_vec();
    }
    let kept = (density * tensor.len() as f64) as usize;
    let mut order: Vec<usize> = (0..tensor.len()).collect();
    order.sort_by(|&a, &b| tensor[b].abs().total_cmp(&tensor[a].abs()));
    let mut pruned = vec![0.0; tensor.len()];
    for &index in &order[..kept] {
        pruned[index] = tensor[index];
    }
    pruned
}

/// Keeps each value with probability `density` and divides the kept ones by it, which preserves the
/// mean.
fn dropped(tensor: &[f32], density: f64, random: &mut Random) -> Vec<f32> {
    if density >= 1.0 {
        return tensor.to_vec();
    }
    let kept = |value: &f32| {
        if random.fraction() < density {
            (f64::from(*value) / density) as f32
        } else {
            0.0
        }
    };
    tensor.iter().map(kept).collect()
}

/// For each position, the weighted mean of the values that have the elected sign.
fn elect(tensors: &[Vec<f32>], weights: &[f32], majority: MajoritySign) -> Vec<f32> {
    // Rust's signum of 0 is 1.
    let sign = |value: f32| if value == 0.0 { 0.0 } else { value.signum() };
    (0..tensors[0].len())
        .map(|index| {
            let values = tensors.iter().map(|tensor| tensor[index]);
            let total: f32 = match majority {
                MajoritySign::Total => values.clone().sum(),
                MajoritySign::Frequency => values.clone().map(sign).sum(),
            };
            let elected = if total >= 0.0 { 1.0 } else { -1.0 };
            let (mut sum, mut count) = (0.0, 0.0_f32);
            for (value, weight) in values.zip(weights) {
                if sign(value) == elected {
                    sum += value * weight;
                    count += 1.0;
                }
            }
            sum / count.max(1.0)
        })
        .collect()
}

/// Random numbers for one tensor of one merge: SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(hash: AdapterHash, module: &str, half: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(hash.0);
        hasher.update(module);
        hasher.update(half);
        let digest: [u8; 32] = hasher.finalize().into();
        Self(
            digest
                .iter()
                .take(8)
                .fold(0, |seed, byte| seed << 8 | u64::from(*byte)),
        )
    }

    /// A number in [0, 1).
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: u8) -> Random {
        Random::new(AdapterHash([seed; 32]), "q", "A")
    }

    #[test]
    fn dropping_keeps_the_fraction_and_the_mean_and_repeats_itself() {
        let tensor: Vec<f32> = (0..100_000).map(|i| 1.0 + (i % 7) as f32).collect();
        let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
        for density in [0.1, 0.5, 0.9] {
            let once = dropped(&tensor, density, &mut random(1));
            assert_eq!(once, dropped(&tensor, density, &mut random(1)));
            assert_ne!(once, dropped(&tensor, density, &mut random(2)));
            let kept = once.iter().filter(|value| **value != 0.0).count() as f64 / tensor.len() as f64;
            assert!((kept - density).abs() < 0.01, "{kept} for {density}");
            assert!((mean(&once) / mean(&tensor) - 1.0).abs() < 0.03, "{density}");
        }
    }

    #[test]
    fn the_largest_are_kept_and_of_equals_the_first() {
        assert_eq!(
            largest(&[1.0, -3.0, 1.0, 2.0, 0.0], 0.6),
            [1.0, -3.0, 0.0, 2.0, 0.0]
        );
        assert_eq!(largest(&[1.0, 2.0], 0.4), [0.0, 0.0]);
    }

    #[test]
    fn signs_are_elected_by_sum_or_by_number() {
        let tensors = [vec![3.0, 0.0], vec![-1.0, 0.0], vec![-1.0, -2.0]];
        let weights = [2.0, 1.0, 3.0];
        assert_eq!(elect(&tensors, &weights, MajoritySign::Total), [6.0, -6.0]);
        assert_eq!(elect(&tensors, &weights, MajoritySign::Frequency), [-2.0, -6.0]);
    }
}
