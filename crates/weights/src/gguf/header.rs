//! From bytes to checked metadata and tensor descriptions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

use multigraft_kernels::BlockType;

use super::cursor::Cursor;
use super::metadata::Metadata;
use super::value::Value;
use crate::error::{Fault, Quoted};

/// GGUF's alignment of tensor data where `general.alignment` is not given.
const DEFAULT_ALIGNMENT: u64 = 32;
/// Metadata and tensor descriptions end within this many bytes. Real ones take some 10 MB, nearly
/// all of it vocabulary; the limit bounds the memory that a lying count can take in a file that is
/// large enough to seem to hold so much.
const HEADER_LIMIT: usize = 256 << 20;
/// No writer pads to more than this.
const ALIGNMENT_LIMIT: u64 = 1 << 20;
/// GGML's tensors have at most four dimensions.
const DIMENSION_LIMIT: u32 = 4;
/// The fewest bytes of a metadata pair: key length, value type, a one-byte value.
const LEAST_PAIR: usize = 8 + 4 + 1;
/// The fewest bytes of a tensor's description: name length, number of dimensions, one dimension,
/// type, offset.
const LEAST_TENSOR: usize = 8 + 4 + 8 + 4 + 8;

/// A tensor's description, checked against the file.
pub(super) struct TensorInfo {
    pub(super) name: String,
    /// Outermost first.
    pub(super) shape: Vec<usize>,
    pub(super) block_type: BlockType,
    /// Where its bytes are in the file.
    pub(super) range: Range<usize>,
}

/// Everything before the tensor data.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    /// Where the metadata's pairs are in the file.
    pub(super) pairs: Range<usize>,
    /// Of tensors' data.
    pub(super) alignment: usize,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) by_name: HashMap<String, usize>,
}

impl Header {
    /// Parses and checks the header of the file whose whole contents are `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.is_empty() {
            return Err(Fault::Empty);
        }
        let head = &bytes[..bytes.len().min(HEADER_LIMIT)];
        let Described {
            metadata,
            pairs,
            alignment,
            tensors,
            end,
        } = describe(head).map_err(|fault| match fault {
            Fault::Truncated { what, .. } | Fault::TooMany { what, .. } if head.len() < bytes.len() => {
                Fault::PastHeaderLimit {
                    what,
                    limit: HEADER_LIMIT as u64,
                }
            }
            fault => fault,
        })?;
        let data_start = (end as u64).next_multiple_of(alignment);
        let tensors = tensors
            .into_iter()
            .map(|raw| raw.place(data_start, alignment, bytes.len() as u64))
            .collect::<Result<Vec<_>, _>>()?;
        check_overlap(&tensors)?;
        let by_name = index(&tensors)?;
        Ok(Self {
            metadata,
            pairs,
            // Bounded by `ALIGNMENT_LIMIT`.
            alignment: alignment as usize,
            tensors,
            by_name,
        })
    }
}

/// A header that is read but not yet checked against the file.
struct Described {
    metadata: Metadata,
    pairs: Range<usize>,
    alignment: u64,
    tensors: Vec<RawTensor>,
    /// Where the header ends.
    end: usize,
}

fn describe(head: &[u8]) -> Result<Described, Fault> {
    let mut cursor = Cursor::new(head);
    check_magic(&mut cursor)?;
    let tensor_count = cursor.count(LEAST_TENSOR, &"the number of tensors")?;
    let pair_count = cursor.count(LEAST_PAIR, &"the number of metadata pairs")?;
    let begin = cursor.position();
    let metadata = read_metadata(&mut cursor, pair_count)?;
    let pairs = begin..cursor.position();
    let alignment = alignment(&metadata)?;
    let tensors = (0..tensor_count)
        .map(|i| RawTensor::read(&mut cursor, i))
        .collect::<Result<_, _>>()?;
    Ok(Described {
        metadata,
        pairs,
        alignment,
        tensors,
        end: cursor.position(),
    })
}

fn check_magic(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let magic: [u8; 4] = cursor.number(|bytes| bytes, &"the magic number")?;
    if magic != *b"GGUF" {
        return Err(Fault::NotGguf(magic));
    }
    match cursor.u32(&"the version")? {
        2 | 3 => Ok(()),
        // A small number in the upper bytes is a small number written the other way round.
        version if version != 0 && version & 0xffff == 0 => Err(Fault::BigEndian),
        version => Err(Fault::GgufVersion(version)),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<Metadata, Fault> {
    let mut metadata = Metadata::default();
    for i in 0..count {
        let key = cursor.name(&format_args!("the key of metadata pair {i}"))?;
        let what = format!("metadata key `{}`", Quoted(key));
        let id = cursor.u32(&format_args!("the type of {what}"))?;
        metadata.insert(key, Value::read(cursor, id, &what)?)?;
    }
    Ok(metadata)
}

fn alignment(metadata: &Metadata) -> Result<u64, Fault> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    value
        .integer()
        .and_then(|v| u64::try_from(v).ok())
        .filter(|v| v.is_power_of_two() && *v <= ALIGNMENT_LIMIT)
        .ok_or_else(|| {
            Fault::BadAlignment(value.integer().map_or("not an integer".into(), |v| v.to_string()))
        })
}

/// A description as it stands in the file: sizes checked in themselves, not yet against the file.
struct RawTensor {
    name: String,
    shape: Vec<usize>,
    block_type: BlockType,
    len_bytes: u64,
    offset: u64,
}

impl RawTensor {
    fn read(cursor: &mut Cursor<'_>, i: usize) -> Result<Self, Fault> {
        let name = cursor.name(&format_args!("the name of tensor {i}"))?.to_owned();
        let what = format!("the description of tensor `{}`", Quoted(&name));
        let dims = cursor.u32(&what)?;
        if !(1..=DIMENSION_LIMIT).contains(&dims) {
            return Err(Fault::BadDimensions { tensor: name, dims });
        }
        let mut shape = (0..dims)
            .map(|_| cursor.u64(&what))
            .collect::<Result<Vec<_>, _>>()?;
        // GGUF writes the innermost dimension first.
        shape.reverse();
        let block_type =
            BlockType::from_ggml(cursor.u32(&what)?).map_err(|source| Fault::UnknownBlockType {
                tensor: name.clone(),
                source,
            })?;
        let offset = cursor.u64(&what)?;
        if shape.contains(&0) {
            return Err(Fault::ZeroDimension { tensor: name, shape });
        }
        let Some(sizes) = sizes(&shape) else {
            return Err(Fault::ShapeOverflow { tensor: name, shape });
        };
        let cols = sizes[sizes.len() - 1];
        if !cols.is_multiple_of(block_type.block_len()) {
            return Err(Fault::PartialBlock {
                tensor: name,
                cols,
                block_type: block_type.name(),
                block: block_type.block_len(),
            });
        }
        let Some(len_bytes) = block_type.bytes_for(sizes.iter().product()) else {
            return Err(Fault::ShapeOverflow { tensor: name, shape });
        };
        Ok(Self {
            name,
            shape: sizes,
            block_type,
            len_bytes: len_bytes as u64,
            offset,
        })
    }

    /// The tensor with its place in a file of `size` bytes whose tensor data starts at
    /// `data_start`.
    fn place(self, data_start: u64, alignment: u64, size: u64) -> Result<TensorInfo, Fault> {
        let Self {
            name,
            shape,
            block_type,
            len_bytes,
            offset,
        } = self;
        if !offset.is_multiple_of(alignment) {
            return Err(Fault::Misaligned {
                tensor: name,
                offset,
                alignment,
            });
        }
        let start = data_start.saturating_add(offset);
        let range = start
            .checked_add(len_bytes)
            .filter(|&end| end <= size)
            .and_then(|end| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?));
        match range {
            Some(range) => Ok(TensorInfo {
                name,
                shape,
                block_type,
                range,
            }),
            None => Err(Fault::Truncated {
                what: format!("tensor `{}`", Quoted(&name)),
                needed: len_bytes,
                offset: start,
                size,
            }),
        }
    }
}

/// The dimensions as `usize`, if their product fits one too.
fn sizes(shape: &[u64]) -> Option<Vec<usize>> {
    let sizes = shape
        .iter()
        .map(|&d| usize::try_from(d).ok())
        .collect::<Option<Vec<_>>>()?;
    sizes
        .iter()
        .try_fold(1_usize, |product, &d| product.checked_mul(d))?;
    Some(sizes)
}

fn check_overlap(tensors: &[TensorInfo]) -> Result<(), Fault> {
    let mut by_start: Vec<&TensorInfo> = tensors.iter().collect();
    by_start.sort_by_key(|t| t.range.start);
    match by_start
        .windows(2)
        .find(|pair| pair[0].range.end > pair[1].range.start)
    {
        Some(pair) => Err(Fault::Overlap {
            first: pair[0].name.clone(),
            second: pair[1].name.clone(),
        }),
        None => Ok(()),
    }
}

fn index(tensors: &[TensorInfo]) -> Result<HashMap<String, usize>, Fault> {
    let mut by_name = HashMap::with_capacity(tensors.len());
    for (i, tensor) in tensors.iter().enumerate() {
        match by_name.entry(tensor.name.clone()) {
            Entry::Occupied(entry) => return Err(Fault::DuplicateTensor(entry.key().clone())),
            Entry::Vacant(entry) => _ = entry.insert(i),
        }
    }
    Ok(by_name)
}
