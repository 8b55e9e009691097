//! The storage types of tensors in model files: plain floats, and GGUF's quantised blocks.
//!
//! The layouts are those of the GGUF specification and of `gguf-py/gguf/quants.py`. A *block* is a
//! run of neighbouring weights of one matrix row that share a scale. [`BlockType::decode`] is the
//! specification that the packed layouts and the vector kernels are tested against.

use half::f16;

/// The storage type of a tensor in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockType {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float.
    Bf16,
    /// 32 weights: `d·q`, q in -8..8.
    Q4_0,
    /// 32 weights: `d·q + m`, q in 0..16.
    Q4_1,
    /// 32 weights: `d·q`, q in -16..16.
    Q5_0,
    /// 32 weights: `d·q + m`, q in 0..32.
    Q5_1,
    /// 32 weights: `d·q`, q in -128..128.
    Q8_0,
    /// 256 weights in 8 groups: `d·s·q - dmin·m`, q in 0..16, s and m in 0..64.
    Q4K,
    /// 256 weights in 8 groups: `d·s·q - dmin·m`, q in 0..32, s and m in 0..64.
    Q5K,
    /// 256 weights in 16 groups: `d·s·q`, q in -32..32, s in -128..128.
    Q6K,
}

/// A GGUF type number that multigraft does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block type {0} ({name}) is not supported; supported are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K", name = ggml_type_name(*.0))]
pub struct UnknownBlockType(pub u32);

/// GGML's name of a type number, for error messages.
fn ggml_type_name(id: u32) -> &'static str {
    const NAMES: [&str; 40] = [
        "F32",
        "F16",
        "Q4_0",
        "Q4_1",
        "Q4_2",
        "Q4_3",
        "Q5_0",
        "Q5_1",
        "Q8_0",
        "Q8_1",
        "Q2_K",
        "Q3_K",
        "Q4_K",
        "Q5_K",
        "Q6_K",
        "Q8_K",
        "IQ2_XXS",
        "IQ2_XS",
        "IQ3_XXS",
        "IQ1_S",
        "IQ4_NL",
        "IQ3_S",
        "IQ2_S",
        "IQ4_XS",
        "I8",
        "I16",
        "I32",
        "I64",
        "F64",
        "IQ1_M",
        "BF16",
        "Q4_0_4_4",
        "Q4_0_4_8",
        "Q4_0_8_8",
        "TQ1_0",
        "TQ2_0",
        "IQ4_NL_4_4",
        "IQ4_NL_4_8",
        "IQ4_NL_8_8",
        "MXFP4",
    ];
    NAMES.get(id as usize).copied().unwrap_or("unknown")
}

impl BlockType {
    /// Every type, in GGUF's order of names.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// The type with GGUF's number `id` (`ggml_type`).
    pub fn from_ggml(id: u32) -> Result<Self, UnknownBlockType> {
        Ok(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            other => return Err(UnknownBlockType(other)),
        })
    }

    /// Its number in GGUF (`ggml_type`).
    pub fn ggml(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// Its name, as GGUF tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Weights per block.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of `len` consecutive weights, or `None` if `len` is no multiple of the block or the
    /// size overflows.
    pub fn bytes_for(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Decodes whole blocks into the floats that the stored weights represent.
    ///
    /// # Panics
    /// If `bytes` is not exactly the storage of `out.len()` weights.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(
            Some(bytes.len()),
            self.bytes_for(out.len()),
            "bytes of {} {} weights",
            out.len(),
            self.name()
        );
        let blocks = bytes
            .chunks_exact(self.block_bytes())
            .zip(out.chunks_exact_mut(self.block_len()));
        let decode_block: fn(&[u8], &mut [f32]) = match self {
            Self::F32 => return plain(bytes, out, f32::from_le_bytes),
            Self::F16 => return plain(bytes, out, |number| f16::from_le_bytes(number).to_f32()),
            // A brain float is the upper half of the same float32, including the payload of a NaN.
            Self::Bf16 => {
                return plain(bytes, out, |number| {
                    f32::from_bits(u32::from(u16::from_le_bytes(number)) << 16)
                });
            }
            Self::Q4_0 => |b, o| nibbles(half(b), -8.0 * half(b), None, &b[2..], o),
            Self::Q4_1 => |b, o| nibbles(half(b), half(&b[2..]), None, &b[4..], o),
            Self::Q5_0 => |b, o| nibbles(half(b), -16.0 * half(b), Some(&b[2..6]), &b[6..], o),
            Self::Q5_1 => |b, o| nibbles(half(b), half(&b[2..]), Some(&b[4..8]), &b[8..], o),
            Self::Q8_0 => |b, o| {
                let d = half(b);
                o.iter_mut()
                    .zip(&b[2..])
                    .for_each(|(o, &q)| *o = d * f32::from(q.cast_signed()));
            },
            Self::Q4K => |b, o| super_block(half(b), half(&b[2..]), &b[4..16], None, &b[16..], o),
            Self::Q5K => |b, o| super_block(half(b), half(&b[2..]), &b[4..16], Some(&b[16..48]), &b[48..], o),
            Self::Q6K => q6_k,
        };
        blocks.for_each(|(b, o)| decode_block(b, o));
    }
}

/// Decodes plain numbers, which are stored without blocks.
fn plain<const BYTES: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; BYTES]) -> f32) {
    let (numbers, _) = bytes.as_chunks::<BYTES>();
    for (out, &number) in out.iter_mut().zip(numbers) {
        *out = decode(number);
    }
}

fn half(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// `scale·q + min` for 32 weights: weight i has the low nibble of byte i, weight i+16 the high one;
/// bit i of `high` is weight i's fifth bit.
fn nibbles(scale: f32, min: f32, high: Option<&[u8]>, low: &[u8], out: &mut [f32]) {
    let high = high.map_or(0, |h| u32::from_le_bytes([h[0], h[1], h[2], h[3]]));
    for (i, o) in out.iter_mut().enumerate() {
        let nibble = if i < 16 { low[i] & 15 } else { low[i - 16] >> 4 };
        let q = u32::from(nibble) | ((high >> i & 1) << 4);
        *o = scale * q as f32 + min;
    }
}

/// The six-bit scale and minimum of group `j` (0..8) of a Q4_K or Q5_K block, packed into 12 bytes.
pub(crate) fn k_scale_min(j: usize, packed: &[u8]) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            (packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4),
            (packed[j + 4] >> 4) | (packed[j] >> 6 << 4),
        )
    }
}

/// Q4_K and Q5_K: groups 2p and 2p+1 are the low and high nibbles of bytes 32p..32p+32; bit j of
/// `high[i]` is the fifth bit of weight i of group j.
fn super_block(d: f32, dmin: f32, scales: &[u8], high: Option<&[u8]>, low: &[u8], out: &mut [f32]) {
    for (j, group) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = k_scale_min(j, scales);
        let (scale, min) = (d * f32::from(s), dmin * f32::from(m));
        for (i, o) in group.iter_mut().enumerate() {
            let byte = low[j / 2 * 32 + i];
            let nibble = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
            let fifth = high.map_or(0, |h| (h[i] >> j & 1) << 4);
            *o = scale * f32::from(nibble | fifth) - min;
        }
    }
}

/// Q6_K: 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, one float16 scale.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = half(d);
    for (n, o) in out.iter_mut().enumerate() {
        let (half_block, i) = (n / 128, n % 128);
        let (quarter, lane) = (i / 32, i % 32);
        let byte = low[half_block * 64 + (quarter % 2) * 32 + lane];
        let nibble = if quarter < 2 { byte & 15 } else { byte >> 4 };
        let pair = high[half_block * 32 + lane] >> (2 * quarter) & 3;
        let q = i32::from(nibble | pair << 4) - 32;
        *o = d * f32::from(scales[n / 16].cast_signed()) * q as f32;
    }
}
