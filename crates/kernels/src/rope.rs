//! Rotation of queries and keys (rotary position embedding, arXiv 2104.09864), in the half-split
//! form: feature i of a head pairs with feature i + n; n pairs rotate, the rest of the head does
//! not.

use crate::isa::{Isa, LANES};

/// Sine and cosine of the angles of a step's rows, `[rows, pairs]` each.
#[derive(Clone, Debug, Default)]
pub struct Angles {
    pairs: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    /// Sine and cosine of `position · inv_freq[i]` for each row's position, multiplied by `scale`.
    /// `inv_freq` is `[pairs]`.
    pub fn new(positions: impl ExactSizeIterator<Item = usize>, inv_freq: &[f32], scale: f32) -> Self {
        let len = positions.len() * inv_freq.len();
        let (mut cos, mut sin) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for position in positions {
            for f in inv_freq {
                let (s, c) = (position as f32 * f).sin_cos();
                cos.push(c * scale);
                sin.push(s * scale);
            }
        }
        Self {
            pairs: inv_freq.len(),
            cos,
            sin,
        }
    }

    /// Rotates every head of a row, `[n, head_dim]`.
    ///
    /// # Panics
    /// If `head_dim` is less than twice the number of pairs.
    #[inline(always)]
    pub(crate) fn rotate<I: Isa>(&self, isa: I, row: usize, heads: &mut [f32], head_dim: usize) {
        let pairs = self.pairs;
        assert!(2 * pairs <= head_dim, "{pairs} pairs in heads of {head_dim}");
        let cos = self.cos[row * pairs..][..pairs].as_chunks::<LANES>();
        let sin = self.sin[row * pairs..][..pairs].as_chunks::<LANES>();
        for head in heads.chunks_exact_mut(head_dim) {
            let (first, second) = head.split_at_mut(pairs);
            let (first, first_rest) = first.as_chunks_mut::<LANES>();
            let (second, second_rest) = second[..pairs].as_chunks_mut::<LANES>();
            for (i, (first, second)) in first.iter_mut().zip(second).enumerate() {
                let (cos, sin) = (isa.load(&cos.0[i]), isa.load(&sin.0[i]));
                let (a, b) = (isa.load(first), isa.load(second));
                isa.store(isa.sub(isa.mul(a, cos), isa.mul(b, sin)), first);
                isa.store(isa.add(isa.mul(b, cos), isa.mul(a, sin)), second);
            }
            for (i, (first, second)) in first_rest.iter_mut().zip(second_rest).enumerate() {
                let (a, b, cos, sin) = (*first, *second, cos.1[i], sin.1[i]);
                *first = a * cos - b * sin;
                *second = b * cos + a * sin;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{InstructionSet, Kernel, dispatch_on};

    struct Rotate<'a>(&'a Angles, &'a mut [f32], usize);

    impl Kernel for Rotate<'_> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            self.0.rotate(isa, 1, self.1, self.2);
        }
    }

    proptest::proptest! {
        #[test]
        fn pairs_turn_by_their_angle_on_every_instruction_set(
            position in 0usize..5000, pairs in 1usize..40, rest in 0usize..5, seed: u32,
        ) {
            let head_dim = 2 * pairs + rest;
            let inv_freq: Vec<f32> = (0..pairs).map(|i| 10000f32.powf(-(i as f32) / pairs as f32)).collect();
            let angles = Angles::new([3, position].into_iter(), &inv_freq, 1.5);
            let heads: Vec<f32> = (0..2 * head_dim).map(|i| (f64::from(seed) + i as f64 * 1.7).sin() as f32).collect();
            for set in InstructionSet::available() {
                let mut got = heads.clone();
                dispatch_on(set, Rotate(&angles, &mut got, head_dim));
                for (got, from) in got.chunks(head_dim).zip(heads.chunks(head_dim)) {
                    for i in 0..pairs {
                        let (sin, cos) = (position as f32 * inv_freq[i]).sin_cos();
                        let (a, b, cos, sin) = (from[i], from[i + pairs], cos * 1.5, sin * 1.5);
                        proptest::prop_assert_eq!(got[i], a * cos - b * sin);
                        proptest::prop_assert_eq!(got[i + pairs], b * cos + a * sin);
                    }
                    proptest::prop_assert_eq!(&got[2 * pairs..], &from[2 * pairs..]);
                }
            }
        }
    }
}
