//! The gate of a feed-forward network, and the caps on scores and logits.

use crate::isa::{Isa, Kernel, LANES, dispatch, exp};
use crate::pool::Pool;
use crate::shared::SharedRows;

/// The non-linearity of a gated feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e⁻ˣ)`.
    Silu,
    /// The tanh approximation of GELU: `x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³)))`.
    GeluTanh,
}

/// `out = activation(gate) · up` for each row: `gate_up` is `[rows, 2·width]`, gates first; `out`
/// `[rows, width]`.
///
/// # Panics
/// If the sizes do not fit.
pub fn gated(pool: &Pool, activation: Activation, gate_up: &[f32], out: &mut [f32], width: usize) {
    assert_eq!(gate_up.len(), 2 * out.len(), "gate and up beside out");
    assert!(out.len().is_multiple_of(width), "rows of {width}");
    let rows = out.len() / width;
    let out = SharedRows::new(out, width);
    pool.run_chunked(rows, |row| {
        let (gate, up) = gate_up[2 * row * width..][..2 * width].split_at(width);
        dispatch(Gate {
            gate,
            up,
            out: out.slice(row, 0, width),
            gelu: activation == Activation::GeluTanh,
        });
    });
}

/// `x = cap · tanh(x / cap)`.
pub fn softcap(x: &mut [f32], cap: f32) {
    dispatch(Softcap { x, cap });
}

struct Gate<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
    gelu: bool,
}

impl Kernel for Gate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if self.gelu {
            self.with(isa, Gelu);
        } else {
            self.with(isa, Silu);
        }
    }
}

impl Gate<'_> {
    /// `out = function(gate) · up`, sixteen at a time; the last ones are padded.
    #[inline(always)]
    fn with<I: Isa>(self, isa: I, function: impl Function) {
        let (gates, gate_rest) = self.gate.as_chunks::<LANES>();
        let (ups, up_rest) = self.up.as_chunks::<LANES>();
        let (outs, out_rest) = self.out.as_chunks_mut::<LANES>();
        for (out, (gate, up)) in outs.iter_mut().zip(gates.iter().zip(ups)) {
            isa.store(isa.mul(function.of(isa, isa.load(gate)), isa.load(up)), out);
        }
        let mut gate = [0.0; LANES];
        gate[..gate_rest.len()].copy_from_slice(gate_rest);
        isa.store(function.of(isa, isa.load(&gate)), &mut gate);
        for (out, (gate, up)) in out_rest.iter_mut().zip(gate.iter().zip(up_rest)) {
            *out = gate * up;
        }
    }
}

struct Softcap<'a> {
    x: &'a mut [f32],
    cap: f32,
}

impl Kernel for Softcap<'_> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        each_lane(isa, self.x, Cap(self.cap));
    }
}

/// A function of one float, on lanes. A trait instead of a closure, for the reason in [`Isa`].
trait Function: Copy {
    fn of<I: Isa>(self, isa: I, x: I::F) -> I::F;
}

#[derive(Clone, Copy)]
struct Silu;

impl Function for Silu {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, x: I::F) -> I::F {
        isa.div(x, isa.add(isa.splat(1.0), exp(isa, isa.sub(isa.splat(0.0), x))))
    }
}

#[derive(Clone, Copy)]
struct Gelu;

impl Function for Gelu {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, x: I::F) -> I::F {
        let cube = isa.mul(isa.mul(x, x), x);
        let inner = isa.mul(isa.mul_add(cube, isa.splat(0.044_715), x), isa.splat(0.797_884_6));
        let half = isa.mul(x, isa.splat(0.5));
        isa.mul_add(half, tanh(isa, inner), half)
    }
}

#[derive(Clone, Copy)]
struct Cap(f32);

impl Function for Cap {
    #[inline(always)]
    fn of<I: Isa>(self, isa: I, x: I::F) -> I::F {
        let cap = isa.splat(self.0);
        isa.mul(cap, tanh(isa, isa.div(x, cap)))
    }
}

/// `1 - 2 / (e²ˣ + 1)`.
#[inline(always)]
pub(crate) fn tanh<I: Isa>(isa: I, x: I::F) -> I::F {
    let e = exp(isa, isa.add(x, x));
    isa.sub(
        isa.splat(1.0),
        isa.div(isa.splat(2.0), isa.add(e, isa.splat(1.0))),
    )
}

/// Maps all values, sixteen at a time; the last ones are padded.
#[inline(always)]
fn each_lane<I: Isa>(isa: I, x: &mut [f32], function: impl Function) {
    let (lanes, rest) = x.as_chunks_mut::<LANES>();
    for lane in lanes {
        isa.store(function.of(isa, isa.load(lane)), lane);
    }
    let mut padded = [0.0; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    isa.store(function.of(isa, isa.load(&padded)), &mut padded);
    rest.copy_from_slice(&padded[..rest.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f32, want: f64) -> bool {
        (f64::from(got) - want).abs() < 3e-6 * (1.0 + want.abs())
    }

    proptest::proptest! {
        #[test]
        fn gates_and_caps_are_their_formulas(x in proptest::collection::vec(-30f32..30.0, 1..40)) {
            let up: Vec<f32> = x.iter().map(|x| x * 0.5 + 1.0).collect();
            let gate_up: Vec<f32> = x.iter().chain(&up).copied().collect();
            let (mut silu, mut gelu, mut capped) = (vec![0.0; x.len()], vec![0.0; x.len()], x.clone());
            gated(&Pool::new(1), Activation::Silu, &gate_up, &mut silu, x.len());
            gated(&Pool::new(1), Activation::GeluTanh, &gate_up, &mut gelu, x.len());
            softcap(&mut capped, 5.0);
            for (i, &x) in x.iter().enumerate() {
                let (x, up) = (f64::from(x), f64::from(up[i]));
                proptest::prop_assert!(close(silu[i], x / (1.0 + (-x).exp()) * up));
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                proptest::prop_assert!(close(gelu[i], 0.5 * x * (1.0 + inner.tanh()) * up));
                proptest::prop_assert!(close(capped[i], 5.0 * (x / 5.0).tanh()));
            }
        }
    }
}
