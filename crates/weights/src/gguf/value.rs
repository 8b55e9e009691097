//! Metadata values: numbers, truth values, strings, and arrays of them.

use std::fmt::Display;

use super::cursor::Cursor;
use crate::error::Fault;

/// Arrays of arrays are read down to this depth. Real files do not nest at all; without a limit a
/// small file could exhaust the stack.
const NESTING_LIMIT: usize = 4;

/// The fewest bytes that a nested array can take: its type and its count.
const ARRAY_HEADER: usize = 12;

/// How many strings memory is taken for at once, on a count's word alone: a large vocabulary.
const STRINGS_AHEAD: usize = 1 << 18;

/// One metadata value.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are GGUF's type names")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    I64(i64),
    F32(f32),
    F64(f64),
    Bool(bool),
    String(String),
    Array(Array),
}

/// An array of values of one type.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are GGUF's type names")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Self>),
}

impl Value {
    /// The number as an `i128`, for any integer type.
    pub(super) fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// A value of GGUF's type number `id`.
    pub(super) fn read(cursor: &mut Cursor<'_>, id: u32, what: &dyn Display) -> Result<Self, Fault> {
        Ok(match id {
            0 => Self::U8(cursor.number(u8::from_le_bytes, what)?),
            1 => Self::I8(cursor.number(i8::from_le_bytes, what)?),
            2 => Self::U16(cursor.number(u16::from_le_bytes, what)?),
            3 => Self::I16(cursor.number(i16::from_le_bytes, what)?),
            4 => Self::U32(cursor.number(u32::from_le_bytes, what)?),
            5 => Self::I32(cursor.number(i32::from_le_bytes, what)?),
            6 => Self::F32(cursor.number(f32::from_le_bytes, what)?),
            7 => Self::Bool(truth(cursor.number(u8::from_le_bytes, what)?, what)?),
            8 => Self::String(cursor.string(what)?.to_owned()),
            9 => Self::Array(Array::read(cursor, 1, what)?),
            10 => Self::U64(cursor.number(u64::from_le_bytes, what)?),
            11 => Self::I64(cursor.number(i64::from_le_bytes, what)?),
            12 => Self::F64(cursor.number(f64::from_le_bytes, what)?),
            id => {
                return Err(Fault::UnknownValueType {
                    what: what.to_string(),
                    id,
                });
            }
        })
    }
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Array(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, if they are of an integer type and all fit a `T`.
    pub(super) fn integers<T>(&self) -> Option<Vec<T>>
    where
        T: TryFrom<i128>,
    {
        fn all<S: Copy + Into<i128>, T: TryFrom<i128>>(values: &[S]) -> Option<Vec<T>> {
            values.iter().map(|&v| T::try_from(v.into()).ok()).collect()
        }
        match self {
            Self::U8(v) => all(v),
            Self::I8(v) => all(v),
            Self::U16(v) => all(v),
            Self::I16(v) => all(v),
            Self::U32(v) => all(v),
            Self::I32(v) => all(v),
            Self::U64(v) => all(v),
            Self::I64(v) => all(v),
            _ => None,
        }
    }

    fn read(cursor: &mut Cursor<'_>, depth: usize, what: &dyn Display) -> Result<Self, Fault> {
        if depth > NESTING_LIMIT {
            return Err(Fault::NestedTooDeep {
                what: what.to_string(),
                limit: NESTING_LIMIT,
            });
        }
        let id = cursor.u32(&format_args!("the element type of {what}"))?;
        Ok(match id {
            0 => Self::U8(numbers(cursor, u8::from_le_bytes, what)?),
            1 => Self::I8(numbers(cursor, i8::from_le_bytes, what)?),
            2 => Self::U16(numbers(cursor, u16::from_le_bytes, what)?),
            3 => Self::I16(numbers(cursor, i16::from_le_bytes, what)?),
            4 => Self::U32(numbers(cursor, u32::from_le_bytes, what)?),
            5 => Self::I32(numbers(cursor, i32::from_le_bytes, what)?),
            6 => Self::F32(numbers(cursor, f32::from_le_bytes, what)?),
            7 => Self::Bool(
                numbers(cursor, u8::from_le_bytes, what)?
                    .into_iter()
                    .map(|byte| truth(byte, what))
                    .collect::<Result<_, _>>()?,
            ),
            8 => {
                let count = count(cursor, size_of::<u64>(), what)?;
                let mut strings = Vec::with_capacity(count.min(STRINGS_AHEAD));
                for _ in 0..count {
                    strings.push(cursor.string(what)?.to_owned());
                }
                Self::String(strings)
            }
            9 => {
                let count = count(cursor, ARRAY_HEADER, what)?;
                (0..count)
                    .map(|_| Self::read(cursor, depth + 1, what))
                    .collect::<Result<_, _>>()
                    .map(Self::Array)?
            }
            10 => Self::U64(numbers(cursor, u64::from_le_bytes, what)?),
            11 => Self::I64(numbers(cursor, i64::from_le_bytes, what)?),
            12 => Self::F64(numbers(cursor, f64::from_le_bytes, what)?),
            id => {
                return Err(Fault::UnknownValueType {
                    what: format!("an element of {what}"),
                    id,
                });
            }
        })
    }
}

fn count(cursor: &mut Cursor<'_>, least_bytes: usize, what: &dyn Display) -> Result<usize, Fault> {
    cursor.count(least_bytes, &format_args!("the number of elements of {what}"))
}

fn numbers<const N: usize, T>(
    cursor: &mut Cursor<'_>,
    decode: fn([u8; N]) -> T,
    what: &dyn Display,
) -> Result<Vec<T>, Fault> {
    let count = count(cursor, N, what)?;
    let bytes = cursor.take((count * N) as u64, what)?;
    Ok(bytes.as_chunks().0.iter().map(|&chunk| decode(chunk)).collect())
}

fn truth(byte: u8, what: &dyn Display) -> Result<bool, Fault> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        byte => Err(Fault::NotABool {
            what: what.to_string(),
            byte,
        }),
    }
}
