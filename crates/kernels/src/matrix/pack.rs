//! Packing: from the blocks of a file to panels.

use super::PackedMatrix;
use super::bf16;
use super::float::{Bf16, F16, F32};
use super::int8::{Bits, Nibbles, Q4, Q4K, Q4Min, Q5, Q5K, Q5Min, Q6K, Q8, Scales};
use super::panels::Panels;
use crate::blocks::{BlockType, k_scale_min};
use crate::isa::LANES;
use crate::lora::LoraDtype;
use crate::scaled::ScaledInt8;

/// Why a matrix could not be packed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The number of bytes does not fit the shape.
    #[error("a matrix of {out} x {inp} in {block_type} does not take {bytes} bytes")]
    Size {
        /// Number of outputs.
        out: usize,
        /// Number of inputs.
        inp: usize,
        /// Name of the storage type.
        block_type: &'static str,
        /// Number of bytes.
        bytes: usize,
    },
}

/// The precision in which a matrix is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Precision {
    /// Activations are rounded to match the weights' storage: to brain floats for BF16, to eight
    /// bits (more for inputs that are large compared to their neighbours) for quantised weights,
    /// and not at all for F32 and F16.
    #[default]
    Native,
    /// Activations in float32. Quantised weights are decoded when packed, which takes at least four
    /// times the memory.
    Exact,
}

/// Maps an output of the model to its row in the file, because files may order rows differently.
pub type RowOrder<'a> = &'a (dyn Fn(usize) -> usize + Sync);

impl PackedMatrix {
    /// Packs `[out, in]` weights of a file, row-major.
    ///
    /// # Errors
    /// If `bytes` is not the storage of `out × in` weights, each row whole blocks.
    pub fn pack(
        block_type: BlockType,
        bytes: &[u8],
        out: usize,
        inp: usize,
        precision: Precision,
    ) -> Result<Self, PackError> {
        Self::pack_ordered(block_type, bytes, out, inp, precision, &|row| row)
    }

    /// Packs weights of which output `o` is the file's row `order(o)`.
    ///
    /// # Errors
    /// As [`PackedMatrix::pack`].
    ///
    /// # Panics
    /// If `order` returns a row outside `0..out`.
    pub fn pack_ordered(
        block_type: BlockType,
        bytes: &[u8],
        out: usize,
        inp: usize,
        precision: Precision,
        order: RowOrder<'_>,
    ) -> Result<Self, PackError> {
        let row_bytes = block_type.bytes_for(inp).unwrap_or(0);
        if inp == 0 || row_bytes.checked_mul(out) != Some(bytes.len()) {
            return Err(PackError::Size {
                out,
                inp,
                block_type: block_type.name(),
                bytes: bytes.len(),
            });
        }
        let file = File {
            block_type,
            bytes,
            row_bytes,
            out,
            inp,
            order,
        };
        let panels = match precision {
            Precision::Native => file.native(),
            Precision::Exact => file.exact(),
        };
        Ok(Self { out, inp, panels })
    }

    /// Packs float weights `[out, in]`, row-major, as float32.
    ///
    /// # Panics
    /// If `weights` is not `out × in` long.
    pub fn from_f32(weights: &[f32], out: usize, inp: usize) -> Self {
        let bytes = bytemuck::cast_slice(weights);
        Self::pack(BlockType::F32, bytes, out, inp, Precision::Exact)
            .expect("the caller gives out x in weights")
    }

    /// Memory of float weights `[out, in]` once they are packed as `dtype`, in bytes.
    pub fn float_size(out: usize, inp: usize, dtype: LoraDtype) -> usize {
        out.div_ceil(LANES) * inp * dtype.lanes_bytes()
    }

    /// Packs float weights `[out, in]`, row-major, rounded to bf16; activations stay in float32.
    ///
    /// # Panics
    /// If `weights` is not `out × in` long.
    pub fn from_f32_as_bf16(weights: &[f32], out: usize, inp: usize) -> Self {
        let rounded: Vec<half::bf16> = weights.iter().map(|&w| half::bf16::from_f32(w)).collect();
        let bytes = bytemuck::cast_slice(&rounded);
        Self::pack(BlockType::Bf16, bytes, out, inp, Precision::Exact)
            .expect("the caller gives out x in weights")
    }

    /// Packs float weights `[out, in]`, row-major, rounded to eight bits with a scale for every
    /// sixteen outputs of an input; activations stay in float32. If a weight is not finite, its
    /// sixteen become NaN, so that the fault stays visible.
    ///
    /// # Panics
    /// If `weights` is not `out × in` long.
    pub fn from_f32_as_int8(weights: &[f32], out: usize, inp: usize) -> Self {
        assert_eq!(weights.len(), out * inp, "weights of {out} x {inp}");
        let mut packed = Vec::with_capacity(out.div_ceil(LANES) * inp);
        for outputs in weights.chunks(LANES * inp) {
            packed.extend((0..inp).map(|i| {
                let mut lanes = [0.0; LANES];
                for (lane, row) in lanes.iter_mut().zip(outputs.chunks_exact(inp)) {
                    *lane = row[i];
                }
                ScaledInt8::new(&lanes)
            }));
        }
        let panels = Panels::ScaledInt8(packed);
        Self { out, inp, panels }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// A matrix in its file's storage.
struct File<'a> {
    block_type: BlockType,
    bytes: &'a [u8],
    row_bytes: usize,
    out: usize,
    inp: usize,
    order: RowOrder<'a>,
}

impl File<'_> {
    fn native(&self) -> Panels {
        match self.block_type {
            BlockType::F32 | BlockType::F16 => self.exact(),
            BlockType::Bf16 => Panels::Bf16Pairs(self.brain_float_pairs()),
            BlockType::Q8_0 => Panels::Q8(self.blocks(|b, lane, to: &mut Q8| {
                to.d[lane] = u16_at(b, 0);
                for (i, q) in b[2..].iter().enumerate() {
                    // Two's complement + 128 flips the sign's bit.
                    to.q.set(lane, i, q ^ 0x80);
                }
            })),
            BlockType::Q4_0 => Panels::Q4(self.blocks(|b, lane, to: &mut Q4| {
                to.d[lane] = u16_at(b, 0);
                split_halves(&b[2..], lane, &mut to.low);
            })),
            BlockType::Q4_1 => Panels::Q4Min(self.blocks(|b, lane, to: &mut Q4Min| {
                (to.d[lane], to.m[lane]) = (u16_at(b, 0), u16_at(b, 2));
                split_halves(&b[4..], lane, &mut to.low);
            })),
            BlockType::Q5_0 => Panels::Q5(self.blocks(|b, lane, to: &mut Q5| {
                to.d[lane] = u16_at(b, 0);
                set_bits(|i| b[2 + i / 8] >> (i % 8), lane, &mut to.high);
                split_halves(&b[6..], lane, &mut to.low);
            })),
            BlockType::Q5_1 => Panels::Q5Min(self.blocks(|b, lane, to: &mut Q5Min| {
                (to.d[lane], to.m[lane]) = (u16_at(b, 0), u16_at(b, 2));
                set_bits(|i| b[4 + i / 8] >> (i % 8), lane, &mut to.high);
                split_halves(&b[8..], lane, &mut to.low);
            })),
            BlockType::Q4K => Panels::Q4K(self.blocks(|b, lane, to: &mut Q4K| {
                k_scales(b, lane, &mut to.scales);
                k_nibbles(&b[16..], lane, &mut to.low);
            })),
            BlockType::Q5K => Panels::Q5K(self.blocks(|b, lane, to: &mut Q5K| {
                k_scales(b, lane, &mut to.scales);
                for (group, high) in to.high.iter_mut().enumerate() {
                    set_bits(|i| b[16 + i] >> group, lane, high);
                }
                k_nibbles(&b[48..], lane, &mut to.low);
            })),
            BlockType::Q6K => Panels::Q6K(self.blocks(q6_k)),
        }
    }

    fn exact(&self) -> Panels {
        match self.block_type {
            BlockType::F32 => Panels::F32(self.blocks(|b, lane, to: &mut F32| {
                to.0[lane] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            })),
            BlockType::F16 => Panels::F16(self.blocks(|b, lane, to: &mut F16| to.0[lane] = u16_at(b, 0))),
            BlockType::Bf16 => Panels::Bf16(self.blocks(|b, lane, to: &mut Bf16| to.0[lane] = u16_at(b, 0))),
            _ => Panels::F32(self.decoded()),
        }
    }

    /// Builds all panels; `fill(block, lane, to)` writes a block of the file to one lane of a
    /// packed block.
    fn blocks<B: bytemuck::Pod>(&self, fill: impl Fn(&[u8], usize, &mut B)) -> Vec<B> {
        let block_bytes = self.block_type.block_bytes();
        let per_row = self.row_bytes / block_bytes;
        self.panels(per_row, |row, lane, panel: &mut [B]| {
            for (block, to) in row.chunks_exact(block_bytes).zip(panel) {
                fill(block, lane, to);
            }
        })
    }

    fn brain_float_pairs(&self) -> Vec<bf16::Pair> {
        self.panels(self.inp.div_ceil(2), |row, lane, panel: &mut [bf16::Pair]| {
            for (weights, to) in row.chunks(4).zip(panel) {
                to.0[lane] = [
                    u16_at(weights, 0),
                    weights
                        .get(2..)
                        .map_or(0, |odd| if odd.is_empty() { 0 } else { u16_at(odd, 0) }),
                ];
            }
        })
    }

    fn decoded(&self) -> Vec<F32> {
        let decoded = std::cell::RefCell::new(vec![0.0; self.inp]);
        self.panels(self.inp, |row, lane, panel: &mut [F32]| {
            let mut decoded = decoded.borrow_mut();
            self.block_type.decode(row, &mut decoded);
            panel
                .iter_mut()
                .zip(&*decoded)
                .for_each(|(to, w)| to.0[lane] = *w);
        })
    }

    /// Builds panels of `per_panel` blocks; `fill(row, lane, panel)` writes a row of the file to
    /// one lane.
    fn panels<B: bytemuck::Pod>(&self, per_panel: usize, fill: impl Fn(&[u8], usize, &mut [B])) -> Vec<B> {
        let mut packed = vec![B::zeroed(); self.out.div_ceil(LANES) * per_panel];
        for (p, panel) in packed.chunks_exact_mut(per_panel).enumerate() {
            for lane in 0..LANES.min(self.out - p * LANES) {
                let row = (self.order)(p * LANES + lane);
                fill(&self.bytes[row * self.row_bytes..][..self.row_bytes], lane, panel);
            }
        }
        packed
    }
}

/// 32 nibbles in 16 bytes: weights 0..16 in the low nibbles, 16..32 in the high ones.
fn split_halves(bytes: &[u8], lane: usize, to: &mut Nibbles) {
    for (i, byte) in bytes.iter().enumerate() {
        to.set(lane, i, byte & 15);
        to.set(lane, 16 + i, byte >> 4);
    }
}

/// Sets 32 bits; the lowest bit of `bit(i)` is that of weight i.
fn set_bits(bit: impl Fn(usize) -> u8, lane: usize, to: &mut Bits) {
    for i in 0..32 {
        to.set(lane, i, bit(i) & 1);
    }
}

/// The scales of a Q4_K or Q5_K block.
fn k_scales(block: &[u8], lane: usize, to: &mut Scales) {
    (to.d[lane], to.dmin[lane]) = (u16_at(block, 0), u16_at(block, 2));
    for group in 0..8 {
        (to.s[group][lane], to.m[group][lane]) = k_scale_min(group, &block[4..16]);
    }
}

/// The nibbles of a Q4_K or Q5_K block: groups 2p and 2p+1 are the low and the high ones of bytes
/// `32p..`.
fn k_nibbles(bytes: &[u8], lane: usize, to: &mut [Nibbles; 8]) {
    for (group, to) in to.iter_mut().enumerate() {
        let bytes = &bytes[group / 2 * 32..][..32];
        for (i, byte) in bytes.iter().enumerate() {
            to.set(
                lane,
                i,
                if group.is_multiple_of(2) {
                    byte & 15
                } else {
                    byte >> 4
                },
            );
        }
    }
}

fn q6_k(block: &[u8], lane: usize, to: &mut Q6K) {
    to.d[lane] = u16_at(block, 208);
    for (s, byte) in to.s.iter_mut().zip(&block[192..208]) {
        s[lane] = byte.cast_signed();
    }
    for group in 0..8 {
        let (half_block, quarter) = (group / 4, group % 4);
        let low = &block[half_block * 64 + quarter % 2 * 32..][..32];
        let high = &block[128 + half_block * 32..][..32];
        for i in 0..32 {
            let nibble = if quarter < 2 { low[i] & 15 } else { low[i] >> 4 };
            to.low[group].set(lane, i, nibble);
            to.high[group].set(lane, i, high[i] >> (2 * quarter) & 3);
        }
    }
}
