//! Products of rows and panels of floats, with activations in float32. F16, brain floats and
//! adapters' eight bits are widened in registers.
//!
//! A panel is stored input by input, with the sixteen outputs side by side. Each output is `(Σ even
//! inputs) + (Σ odd inputs) + (the last of an odd number)`, each sum taken in order with fused
//! multiply-adds.

use bytemuck::{Pod, Zeroable};

use super::Target;
use super::stretch::Stretch;
use crate::isa::{Isa, Kernel, LANES};
use crate::scaled::ScaledInt8;

/// One input × sixteen outputs of a panel.
pub(super) trait Block: Pod + Send + Sync {
    /// The weights of the sixteen outputs.
    fn load<I: Isa>(&self, isa: I) -> I::F;

    /// The weight of output `lane`.
    fn weight(&self, lane: usize) -> f32;

    /// Passes the weights of each input of a panel to `visitor`.
    #[inline(always)]
    fn walk<I: Isa>(panel: &[Self], isa: I, visitor: &mut impl Visitor<I>) {
        let (pairs, rest) = panel.as_chunks::<2>();
        for (i, [even, odd]) in pairs.iter().enumerate() {
            visitor.pair(isa, 2 * i, even.load(isa), odd.load(isa));
        }
        for block in rest {
            visitor.last(isa, panel.len() - 1, block.load(isa));
        }
    }
}

/// Receives the weights of a panel. It is a trait instead of a closure, because its methods must be
/// `inline(always)`: code that is not inlined is compiled without the instruction set.
///
/// Weights come in pairs, because sums alternate between two accumulators. A pair addresses both
/// without an index, so that they stay in registers.
pub(super) trait Visitor<I: Isa> {
    /// The sixteen outputs' weights for inputs `i` and `i + 1`, i even.
    fn pair(&mut self, isa: I, i: usize, even: I::F, odd: I::F);
    /// The sixteen outputs' weights for the last input, if the number of inputs is odd.
    fn last(&mut self, isa: I, i: usize, weights: I::F);
}

/// Plain numbers, which a load decodes.
macro_rules! plain_block {
    ($(#[$doc:meta])* $name:ident($lanes:ty), $load:ident, $decode:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(super) struct $name(pub(super) $lanes);

        impl Block for $name {
            #[inline(always)]
            fn load<I: Isa>(&self, isa: I) -> I::F {
                isa.$load(&self.0)
            }
            fn weight(&self, lane: usize) -> f32 {
                ($decode)(self.0[lane])
            }
        }
    };
}

plain_block! {
    /// Plain floats.
    F32([f32; LANES]), load, std::convert::identity
}
plain_block! {
    /// IEEE half floats.
    F16([u16; LANES]), load_f16, |bits| half::f16::from_bits(bits).to_f32()
}
plain_block! {
    /// Brain floats.
    Bf16([u16; LANES]), load_bf16, |bits| half::bf16::from_bits(bits).to_f32()
}

impl Block for ScaledInt8 {
    #[inline(always)]
    fn load<I: Isa>(&self, isa: I) -> I::F {
        self.load(isa)
    }
    fn weight(&self, lane: usize) -> f32 {
        self.weight(lane)
    }
}

/// Rows of activations, `[rows, width]`, row-major and dense.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) data: &'a [f32],
    pub(super) width: usize,
}

/// The product of panels and all rows.
pub(super) struct Product<'a, B> {
    pub(super) panels: Stretch<'a, B>,
    pub(super) x: Rows<'a>,
    pub(super) to: Target<'a>,
}

impl<B: Block> Kernel for Product<'_, B> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { panels, x, to } = self;
        for (index, panel) in panels.iter() {
            let rows = x.data.len() / x.width;
            let mut row = 0;
            while row < rows {
                row += match rows - row {
                    1 => tile::<I, B, 1>(isa, panel, x, row, (index, to)),
                    2..4 => tile::<I, B, 2>(isa, panel, x, row, (index, to)),
                    4..8 => tile::<I, B, 4>(isa, panel, x, row, (index, to)),
                    _ => tile::<I, B, 8>(isa, panel, x, row, (index, to)),
                };
            }
        }
    }
}

/// Computes `T` rows at once, for which the weights are decoded once. Returns `T`.
#[inline(always)]
fn tile<I: Isa, B: Block, const T: usize>(
    isa: I,
    panel: &[B],
    x: Rows<'_>,
    first: usize,
    (index, to): (usize, Target<'_>),
) -> usize {
    let zeros = [isa.splat(0.0); T];
    let rows = std::array::from_fn(|t| &x.data[(first + t) * x.width..][..x.width]);
    let mut tile = Tile::<I, T> {
        rows,
        even: zeros,
        odd: zeros,
        last: zeros,
    };
    B::walk(panel, isa, &mut tile);
    for t in 0..T {
        let sum = isa.add(isa.add(tile.even[t], tile.odd[t]), tile.last[t]);
        to.put(isa, index, first + t, sum);
    }
    T
}

/// The running sums of `T` rows × sixteen outputs.
struct Tile<'a, I: Isa, const T: usize> {
    rows: [&'a [f32]; T],
    even: [I::F; T],
    odd: [I::F; T],
    last: [I::F; T],
}

impl<I: Isa, const T: usize> Visitor<I> for Tile<'_, I, T> {
    #[inline(always)]
    fn pair(&mut self, isa: I, i: usize, even: I::F, odd: I::F) {
        for t in 0..T {
            self.even[t] = isa.mul_add(even, isa.splat(self.rows[t][i]), self.even[t]);
            self.odd[t] = isa.mul_add(odd, isa.splat(self.rows[t][i + 1]), self.odd[t]);
        }
    }
    #[inline(always)]
    fn last(&mut self, isa: I, i: usize, weights: I::F) {
        for t in 0..T {
            self.last[t] = isa.mul(weights, isa.splat(self.rows[t][i]));
        }
    }
}
