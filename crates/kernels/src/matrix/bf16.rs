//! Products of rows and panels of brain floats, with activations rounded to brain floats too, which
//! AVX-512's `vdpbf16ps` sums two at a time.
//!
//! A panel is stored by pairs of inputs: the sixteen outputs are side by side, and each output's
//! pair is in one 32-bit lane. Each output's sum is taken pair by pair in order, in each pair the
//! odd input first ([`Isa::dot_bf16`]).

use bytemuck::{Pod, Zeroable};

use super::stretch::Stretch;
use super::{Prefetch, Target};
use crate::isa::{Isa, Kernel, LANES};

/// Sixteen outputs × two inputs. If the number of inputs is odd, the last weight is 0.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Pair(pub(super) [[u16; 2]; LANES]);

/// Two neighbouring inputs of a row as brain floats; after an odd last input the second is 0.
pub(super) type Inputs = [u16; 2];

/// Rounds the row `x` to brain floats, to nearest even. `to` is `[ceil(len / 2)]`.
pub(super) struct Round<'a> {
    pub(super) x: &'a [f32],
    pub(super) to: &'a mut [Inputs],
}

impl Kernel for Round<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (pairs, rest) = self.x.as_chunks::<2>();
        for (pair, to) in pairs.iter().zip(self.to.iter_mut()) {
            *to = [rounded(pair[0]), rounded(pair[1])];
        }
        if let (&[last], Some(to)) = (rest, self.to.last_mut()) {
            *to = [rounded(last), 0];
        }
    }
}

/// The bits of the nearest brain float; NaN stays NaN.
#[inline(always)]
fn rounded(x: f32) -> u16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fc0 } else { nearest as u16 }
}

/// The product of panels and rows, `[rows, pairs]`.
pub(super) struct Product<'a> {
    pub(super) panels: Stretch<'a, Pair>,
    pub(super) x: &'a [Inputs],
    pub(super) to: Target<'a>,
    pub(super) prefetch: Prefetch<'a>,
}

impl Kernel for Product<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            panels,
            x,
            to,
            mut prefetch,
        } = self;
        let lines = prefetch.per_step(panels.iter().count());
        for (index, panel) in panels.iter() {
            prefetch.issue(isa, lines);
            let rows = x.len() / panel.len();
            let mut row = 0;
            while row < rows {
                row += match rows - row {
                    1 => tile::<I, 1>(isa, panel, x, row, (index, to)),
                    2..4 => tile::<I, 2>(isa, panel, x, row, (index, to)),
                    4..8 => tile::<I, 4>(isa, panel, x, row, (index, to)),
                    8..16 => tile::<I, 8>(isa, panel, x, row, (index, to)),
                    _ => tile::<I, 16>(isa, panel, x, row, (index, to)),
                };
            }
        }
    }
}

/// Computes `T` rows at once. Returns `T`.
#[inline(always)]
fn tile<I: Isa, const T: usize>(
    isa: I,
    panel: &[Pair],
    x: &[Inputs],
    first: usize,
    (index, to): (usize, Target<'_>),
) -> usize {
    let n = panel.len();
    let rows: [&[Inputs]; T] = std::array::from_fn(|t| &x[(first + t) * n..][..n]);
    let mut sums = [isa.splat(0.0); T];
    for (i, weights) in panel.iter().enumerate() {
        let weights = isa.load_bytes(bytemuck::cast_ref(&weights.0));
        for t in 0..T {
            sums[t] = isa.dot_bf16(sums[t], weights, rows[t][i]);
        }
    }
    for (t, sum) in sums.into_iter().enumerate() {
        to.put(isa, index, first + t, sum);
    }
    T
}
