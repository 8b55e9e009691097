//! From a file's blocks to panels.

use super::layout::{Bf16, F16, F32, Panels, Q4, Q4K, Q4Min, Q5, Q5K, Q5Min, Q6K, Q8};
use super::{PackedMatrix, layout};
use crate::blocks::{BlockType, k_scale_min};
use crate::isa::LANES;

/// Why a matrix could not be packed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The bytes are not those of the shape.
    #[error("a matrix of {out} x {inp} in {block_type} does not take {bytes} bytes")]
    Size {
        /// Outputs.
        out: usize,
        /// Inputs.
        inp: usize,
        /// Name of the storage type.
        block_type: &'static str,
        /// Bytes given.
        bytes: usize,
    },
}

/// Where each output's row lies in the file: files may order rows otherwise than the model does.
pub type RowOrder<'a> = &'a (dyn Fn(usize) -> usize + Sync);

impl PackedMatrix {
    /// Packs `[out, in]` weights of a file, row-major.
    ///
    /// # Errors
    /// If `bytes` is not the storage of `out × in` weights, each row whole blocks.
    pub fn pack(block_type: BlockType, bytes: &[u8], out: usize, inp: usize) -> Result<Self, PackError> {
        Self::pack_ordered(block_type, bytes, out, inp, &|row| row)
    }

    /// Packs weights whose output `o` is the file's row `order(o)`.
    ///
    /// # Errors
    /// As [`PackedMatrix::pack`].
    ///
    /// # Panics
    /// If `order` leaves `0..out`.
    pub fn pack_ordered(
        block_type: BlockType,
        bytes: &[u8],
        out: usize,
        inp: usize,
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
            bytes,
            row_bytes,
            block_bytes: block_type.block_bytes(),
            out,
            order,
        };
        let panels = match block_type {
            BlockType::F32 => Panels::F32(file.panels(|b, lane, to: &mut F32| {
                to.0[lane] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            })),
            BlockType::F16 => Panels::F16(file.panels(|b, lane, to: &mut F16| to.0[lane] = u16_at(b, 0))),
            BlockType::Bf16 => Panels::Bf16(file.panels(|b, lane, to: &mut Bf16| to.0[lane] = u16_at(b, 0))),
            BlockType::Q8_0 => Panels::Q8(file.panels(|b, lane, to: &mut Q8| {
                to.d[lane] = u16_at(b, 0);
                to.q.iter_mut()
                    .zip(&b[2..])
                    .for_each(|(to, q)| to[lane] = q.cast_signed());
            })),
            BlockType::Q4_0 => Panels::Q4(file.panels(|b, lane, to: &mut Q4| {
                to.d[lane] = u16_at(b, 0);
                pair_nibbles(|i| split_half(&b[2..], i), lane, &mut to.low);
            })),
            BlockType::Q4_1 => Panels::Q4Min(file.panels(|b, lane, to: &mut Q4Min| {
                (to.d[lane], to.m[lane]) = (u16_at(b, 0), u16_at(b, 2));
                pair_nibbles(|i| split_half(&b[4..], i), lane, &mut to.low);
            })),
            BlockType::Q5_0 => Panels::Q5(file.panels(|b, lane, to: &mut Q5| {
                to.d[lane] = u16_at(b, 0);
                pair_bits(|i| b[2 + i / 8] >> (i % 8) & 1, lane, &mut to.high);
                pair_nibbles(|i| split_half(&b[6..], i), lane, &mut to.low);
            })),
            BlockType::Q5_1 => Panels::Q5Min(file.panels(|b, lane, to: &mut Q5Min| {
                (to.d[lane], to.m[lane]) = (u16_at(b, 0), u16_at(b, 2));
                pair_bits(|i| b[4 + i / 8] >> (i % 8) & 1, lane, &mut to.high);
                pair_nibbles(|i| split_half(&b[8..], i), lane, &mut to.low);
            })),
            BlockType::Q4K => Panels::Q4K(file.panels(|b, lane, to: &mut Q4K| {
                (to.d[lane], to.dmin[lane]) = (u16_at(b, 0), u16_at(b, 2));
                for group in 0..8 {
                    (to.s[group][lane], to.m[group][lane]) = k_scale_min(group, &b[4..16]);
                    pair_nibbles(|i| k_nibble(&b[16..], group, i), lane, &mut to.low[group]);
                }
            })),
            BlockType::Q5K => Panels::Q5K(file.panels(|b, lane, to: &mut Q5K| {
                (to.d[lane], to.dmin[lane]) = (u16_at(b, 0), u16_at(b, 2));
                for group in 0..8 {
                    (to.s[group][lane], to.m[group][lane]) = k_scale_min(group, &b[4..16]);
                    pair_bits(|i| b[16 + i] >> group & 1, lane, &mut to.high[group]);
                    pair_nibbles(|i| k_nibble(&b[48..], group, i), lane, &mut to.low[group]);
                }
            })),
            BlockType::Q6K => Panels::Q6K(file.panels(pack_q6_k)),
        };
        Ok(Self { out, inp, panels })
    }

    /// Packs float weights `[out, in]`, row-major, as float32.
    ///
    /// # Panics
    /// If `weights` is not `out × in` long.
    pub fn from_f32(weights: &[f32], out: usize, inp: usize) -> Self {
        Self::pack(BlockType::F32, bytemuck::cast_slice(weights), out, inp)
            .expect("the caller gives out x in weights")
    }

    /// Packs float weights `[out, in]`, row-major, rounded to bf16.
    ///
    /// # Panics
    /// If `weights` is not `out × in` long.
    pub fn from_f32_as_bf16(weights: &[f32], out: usize, inp: usize) -> Self {
        let rounded: Vec<half::bf16> = weights.iter().map(|&w| half::bf16::from_f32(w)).collect();
        Self::pack(BlockType::Bf16, bytemuck::cast_slice(&rounded), out, inp)
            .expect("the caller gives out x in weights")
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// A matrix as it lies in a file.
struct File<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    block_bytes: usize,
    out: usize,
    order: RowOrder<'a>,
}

impl File<'_> {
    /// Builds all panels; `fill(block, lane, to)` puts one file block into one lane of a packed block.
    fn panels<B: layout::Block>(&self, fill: impl Fn(&[u8], usize, &mut B)) -> Vec<B> {
        let per_row = self.row_bytes / self.block_bytes;
        let mut packed = vec![B::zeroed(); self.out.div_ceil(LANES) * per_row];
        for (p, panel) in packed.chunks_exact_mut(per_row).enumerate() {
            for lane in 0..LANES.min(self.out - p * LANES) {
                let row = (self.order)(p * LANES + lane);
                let row = &self.bytes[row * self.row_bytes..][..self.row_bytes];
                for (block, to) in row.chunks_exact(self.block_bytes).zip(panel.iter_mut()) {
                    fill(block, lane, to);
                }
            }
        }
        packed
    }
}

/// Nibble i of 32 that lie as two halves: 0..16 in the low nibbles, 16..32 in the high ones.
fn split_half(bytes: &[u8], i: usize) -> u8 {
    if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 }
}

/// Nibble i of group `group` of a Q4_K or Q5_K block.
fn k_nibble(bytes: &[u8], group: usize, i: usize) -> u8 {
    let byte = bytes[group / 2 * 32 + i];
    if group.is_multiple_of(2) {
        byte & 15
    } else {
        byte >> 4
    }
}

/// Puts inputs 2i and 2i+1 into one byte.
fn pair_nibbles<const N: usize>(nibble: impl Fn(usize) -> u8, lane: usize, to: &mut [[u8; LANES]; N]) {
    for (i, to) in to.iter_mut().enumerate() {
        to[lane] = nibble(2 * i) | nibble(2 * i + 1) << 4;
    }
}

/// Puts input i's bit into bit `lane` of its mask.
fn pair_bits<const N: usize>(bit: impl Fn(usize) -> u8, lane: usize, to: &mut [[u16; 2]; N]) {
    for (i, to) in to.as_flattened_mut().iter_mut().enumerate() {
        *to |= u16::from(bit(i)) << lane;
    }
}

fn pack_q6_k(block: &[u8], lane: usize, to: &mut Q6K) {
    let quant = |n: usize| {
        let (half_block, i) = (n / 128, n % 128);
        let (quarter, j) = (i / 32, i % 32);
        let byte = block[half_block * 64 + (quarter % 2) * 32 + j];
        let nibble = if quarter < 2 { byte & 15 } else { byte >> 4 };
        (nibble, block[128 + half_block * 32 + j] >> (2 * quarter) & 3)
    };
    to.d[lane] = u16_at(block, 208);
    for group in 0..16 {
        to.s[group][lane] = block[192 + group].cast_signed();
        pair_nibbles(|i| quant(group * 16 + i).0, lane, &mut to.low[group]);
        for (i, high) in to.high[group].iter_mut().enumerate() {
            high[lane] = (0..4).map(|j| quant(group * 16 + 4 * i + j).1 << (2 * j)).sum();
        }
    }
}
