//! The packed bits of a group's weights, and unpacking them.
//!
//! A vector holds four neighbouring inputs of each of sixteen outputs, with an output in each
//! 32-bit lane, as integer dot products need it. A group of 32 inputs is two halves of four
//! vectors.

use bytemuck::{Pod, Zeroable};

use crate::isa::{Isa, LANES};

/// Four bytes per output.
pub(super) type Vector = [u8; 4 * LANES];

/// An array of four, with `$v` a constant in each element. Built in a loop, the array would be in
/// memory instead of registers.
macro_rules! four {
    ($v:ident => $element:expr) => {
        [
            {
                const $v: usize = 0;
                $element
            },
            {
                const $v: usize = 1;
                $element
            },
            {
                const $v: usize = 2;
                $element
            },
            {
                const $v: usize = 3;
                $element
            },
        ]
    };
}

/// The packed `q` of a group: two halves of four vectors.
pub(super) trait Packed<I: Isa>: Copy {
    /// A half's four vectors.
    fn half(self, isa: I, half: usize) -> [I::B; 4];

    /// All vectors in memory, so that one can be indexed: where they are stored, or in `room`.
    #[inline(always)]
    fn in_memory<'a>(self, isa: I, room: &'a mut Room) -> &'a Whole
    where
        Self: 'a,
    {
        for (half, to) in room.0.0.iter_mut().enumerate() {
            for (vector, to) in self.half(isa, half).into_iter().zip(to) {
                isa.store_bytes(vector, to);
            }
        }
        &room.0
    }
}

/// Memory for a group's vectors. Each is aligned to a cache line, because a store across two lines
/// takes twice the time.
#[repr(align(64))]
pub(super) struct Room(Whole);

impl Room {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self(Whole([[[0; 4 * LANES]; 4]; 2]))
    }
}

/// Eight bits of 32 inputs: vector v of half h has inputs `16h + 4v..`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Whole(pub(super) [[Vector; 4]; 2]);

impl Whole {
    /// The bits of input `i` alone.
    #[inline(always)]
    pub(super) fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        isa.to_floats(isa.bits(&self.0[i / 16][i % 16 / 4], 8 * (i as u32 % 4), 255))
    }

    pub(in crate::matrix) fn set(&mut self, lane: usize, i: usize, q: u8) {
        self.0[i / 16][i % 16 / 4][4 * lane + i % 4] = q;
    }
}

impl<I: Isa> Packed<I> for &Whole {
    #[inline(always)]
    fn half(self, isa: I, half: usize) -> [I::B; 4] {
        four!(V => isa.load_bytes(&self.0[half][V]))
    }
    #[inline(always)]
    fn in_memory<'a>(self, _: I, _: &'a mut Room) -> &'a Whole
    where
        Self: 'a,
    {
        self
    }
}

/// Four bits of 32 inputs: vector v has inputs `4v..` in its low and `16 + 4v..` in its high
/// nibbles.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Nibbles([Vector; 4]);

impl Nibbles {
    /// The bits of input `i` alone.
    #[inline(always)]
    pub(super) fn input<I: Isa>(&self, isa: I, i: usize) -> I::F {
        let at = 8 * (i % 4) + 4 * (i / 16);
        isa.to_floats(isa.bits(&self.0[i % 16 / 4], at as u32, 15))
    }

    pub(in crate::matrix) fn set(&mut self, lane: usize, i: usize, q: u8) {
        self.0[i % 16 / 4][4 * lane + i % 4] |= if i < 16 { q } else { q << 4 };
    }
}

impl<I: Isa> Packed<I> for &Nibbles {
    #[inline(always)]
    fn half(self, isa: I, half: usize) -> [I::B; 4] {
        four!(V => {
            let both = isa.load_bytes(&self.0[V]);
            isa.and_bytes(if half == 0 { both } else { isa.shift_down(both, 4) }, 15)
        })
    }
}

/// One bit of 32 inputs: bit v of byte j is that of input `4v + j`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Bits(Vector);

impl Bits {
    /// The bit of input `i` alone, shifted above the low bits.
    #[inline(always)]
    pub(super) fn input<I: Isa>(&self, isa: I, i: usize, low: I::F) -> I::F {
        let at = 8 * (i % 4) + i / 4;
        let bit = isa.to_floats(isa.bits(&self.0, at as u32, 1));
        isa.mul_add(bit, isa.splat(16.0), low)
    }

    pub(in crate::matrix) fn set(&mut self, lane: usize, i: usize, bit: u8) {
        self.0[4 * lane + i % 4] |= bit << (i / 4);
    }
}

/// Four low bits and a fifth bit.
impl<I: Isa> Packed<I> for (&Nibbles, &Bits) {
    #[inline(always)]
    fn half(self, isa: I, half: usize) -> [I::B; 4] {
        let (low, bits) = (self.0.half(isa, half), isa.load_bytes(&self.1.0));
        four!(V => {
            let bit = isa.and_bytes(bits, 1 << (4 * half + V));
            let fifth = if half == 0 { isa.shift_up(bit, 4 - V as u32) } else { isa.shift_down(bit, V as u32) };
            isa.or_bytes(low[V], fifth)
        })
    }
}

/// Two bits of 32 inputs: in vector h, bits 2v and 2v+1 of byte j are those of input `16h + 4v +
/// j`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(transparent)]
pub(in crate::matrix) struct Crumbs([Vector; 2]);

impl Crumbs {
    /// The bits of input `i` alone, shifted above the low bits.
    #[inline(always)]
    pub(super) fn input<I: Isa>(&self, isa: I, i: usize, low: I::F) -> I::F {
        let at = 8 * (i % 4) + 2 * (i % 16 / 4);
        let bits = isa.to_floats(isa.bits(&self.0[i / 16], at as u32, 3));
        isa.mul_add(bits, isa.splat(16.0), low)
    }

    pub(in crate::matrix) fn set(&mut self, lane: usize, i: usize, bits: u8) {
        self.0[i / 16][4 * lane + i % 4] |= bits << (2 * (i % 16 / 4));
    }
}

/// Four low bits, a fifth and a sixth bit.
impl<I: Isa> Packed<I> for (&Nibbles, &Crumbs) {
    #[inline(always)]
    fn half(self, isa: I, half: usize) -> [I::B; 4] {
        let (low, crumbs) = (self.0.half(isa, half), isa.load_bytes(&self.1.0[half]));
        four!(V => {
            let at = 2 * V as u32;
            let bits = isa.and_bytes(crumbs, 3 << at);
            let bits = if at < 4 { isa.shift_up(bits, 4 - at) } else { isa.shift_down(bits, at - 4) };
            isa.or_bytes(low[V], bits)
        })
    }
}
