//! From bytes to checked tensor descriptions.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;

use multigraft_kernels::BlockType;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::error::{Fault, Quoted};

/// The longest header, the reference implementation's own limit.
const HEADER_LIMIT: u64 = 100_000_000;
/// Bytes of the header's length at the start of the file.
const LENGTH_BYTES: usize = 8;

/// A tensor's description, checked against the file.
pub(super) struct TensorInfo {
    pub(super) name: String,
    /// As written in the file.
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    /// Where its bytes are in the file.
    pub(super) range: Range<usize>,
}

impl TensorInfo {
    /// The type of the weights, if they are floats that multigraft reads.
    pub(super) fn block_type(&self) -> Option<BlockType> {
        match self.dtype.as_str() {
            "F32" => Some(BlockType::F32),
            "F16" => Some(BlockType::F16),
            "BF16" => Some(BlockType::Bf16),
            _ => None,
        }
    }
}

/// What a file says about itself.
pub(super) struct Header {
    /// In order of their bytes.
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Header {
    /// Parses and checks the header of the file whose whole contents are `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let size = bytes.len() as u64;
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            let what = "the header's length".to_owned();
            return Err(match size {
                0 => Fault::Empty,
                _ => Fault::Truncated {
                    what,
                    needed: LENGTH_BYTES as u64,
                    offset: 0,
                    size,
                },
            });
        };
        let len = u64::from_le_bytes(*length);
        if len > HEADER_LIMIT {
            return Err(Fault::HeaderTooLong {
                len,
                limit: HEADER_LIMIT,
            });
        }
        let Some((json, data)) = usize::try_from(len)
            .ok()
            .and_then(|len| rest.split_at_checked(len))
        else {
            let what = "the header".to_owned();
            return Err(Fault::Truncated {
                what,
                needed: len,
                offset: LENGTH_BYTES as u64,
                size,
            });
        };
        let mut json: RawHeader = match json.first() {
            Some(b'{') => serde_json::from_slice(json).map_err(|e| bad_json(e.to_string()))?,
            _ => return Err(bad_json("it does not start with `{`".to_owned())),
        };
        // Ties (empty tensors) in the order of names, to be the same for every run and writer.
        json.tensors
            .sort_by(|(a_name, a), (b_name, b)| (a.data_offsets, a_name).cmp(&(b.data_offsets, b_name)));
        let data_start = bytes.len() - data.len();
        let tensors = place(json.tensors, data_start, size)?;
        Ok(Self {
            tensors,
            metadata: json.metadata,
        })
    }
}

fn bad_json(reason: String) -> Fault {
    Fault::BadJson {
        what: "the header",
        reason,
    }
}

/// The tensors, sorted by offset, with their places in the file: each as long as its shape says,
/// each beginning where the last one ended, the last one ending with the file.
fn place(raw: Vec<(String, RawTensor)>, data_start: usize, size: u64) -> Result<Vec<TensorInfo>, Fault> {
    let data_size = size - data_start as u64;
    let mut end_of_last = 0;
    let mut tensors: Vec<TensorInfo> = Vec::with_capacity(raw.len());
    for (
        name,
        RawTensor {
            dtype,
            shape,
            data_offsets: (begin, end),
        },
    ) in raw
    {
        if end < begin {
            return Err(Fault::BackwardOffsets {
                tensor: name,
                begin,
                end,
            });
        }
        let what = format!("tensor `{}`", Quoted(&name));
        if end > data_size {
            let offset = begin.saturating_add(data_start as u64);
            return Err(Fault::Truncated {
                what,
                needed: end - begin,
                offset,
                size,
            });
        }
        let Some((sizes, expected)) = sizes(&shape, &dtype, end - begin) else {
            return Err(Fault::ShapeOverflow { tensor: name, shape });
        };
        if expected != end - begin {
            return Err(Fault::SizeMismatch {
                tensor: name,
                shape,
                dtype,
                expected,
                actual: end - begin,
            });
        }
        if begin > end_of_last {
            return Err(Fault::Hole {
                bytes: begin - end_of_last,
                what,
            });
        }
        if begin < end_of_last {
            let first = tensors.last().map(|t| t.name.clone()).unwrap_or_default();
            return Err(Fault::Overlap { first, second: name });
        }
        end_of_last = end;
        // Both are at most the file's size, which is a slice's length.
        let range = data_start + begin as usize..data_start + end as usize;
        tensors.push(TensorInfo {
            name,
            dtype,
            shape: sizes,
            range,
        });
    }
    if end_of_last < data_size {
        return Err(Fault::Hole {
            bytes: data_size - end_of_last,
            what: "the end of the file".to_owned(),
        });
    }
    Ok(tensors)
}

/// The dimensions as `usize` and the bytes they take; for a dtype of unknown width, the `actual`
/// bytes. `None` if a product overflows, zeros left aside: no caller's product over some of the
/// dimensions can overflow then.
fn sizes(shape: &[u64], dtype: &str, actual: u64) -> Option<(Vec<usize>, u64)> {
    let sizes = shape
        .iter()
        .map(|&d| usize::try_from(d).ok())
        .collect::<Option<Vec<_>>>()?;
    let bits = dtype_bits(dtype).unwrap_or(8);
    let most = shape
        .iter()
        .try_fold(bits, |product, &d| product.checked_mul(d.max(1)))?;
    let bytes = match dtype_bits(dtype) {
        None => actual,
        Some(_) if shape.contains(&0) => 0,
        Some(_) => most.div_ceil(8),
    };
    Some((sizes, bytes))
}

/// Bits per element of the dtypes that safetensors defines.
fn dtype_bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

/// The header's JSON before it is checked against the file.
#[derive(Default)]
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawHeaderVisitor)
    }
}

/// By hand, because a derived map would silently keep the last of two equal names.
struct RawHeaderVisitor;

impl<'de> Visitor<'de> for RawHeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!("`{}` occurs twice", Quoted(&name))));
            }
            if name == "__metadata__" {
                header.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
            } else {
                let tensor = map
                    .next_value()
                    .map_err(|e| A::Error::custom(format_args!("tensor `{}`: {e}", Quoted(&name))))?;
                header.tensors.push((name, tensor));
            }
        }
        Ok(header)
    }
}
