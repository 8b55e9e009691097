//! Reading a byte slice from front to back, never past its end.

use std::fmt::Display;

use crate::error::Fault;

/// Keys and tensor names are at most this long: the specification's limit for keys (tensor names:
/// 64).
pub(super) const NAME_LIMIT: u64 = 65_535;

/// A position in a file. Every method takes `what`, the words by which an error names the thing
/// being read.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Bytes from here to the end.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: u64, what: &dyn Display) -> Result<&'a [u8], Fault> {
        match usize::try_from(len).ok().filter(|&len| len <= self.left()) {
            Some(len) => {
                let taken = &self.bytes[self.position..self.position + len];
                self.position += len;
                Ok(taken)
            }
            None => Err(Fault::Truncated {
                what: what.to_string(),
                needed: len,
                offset: self.position as u64,
                size: self.bytes.len() as u64,
            }),
        }
    }

    /// The next `N` bytes, turned into a number by `decode`.
    pub(super) fn number<const N: usize, T>(
        &mut self,
        decode: fn([u8; N]) -> T,
        what: &dyn Display,
    ) -> Result<T, Fault> {
        let bytes = self.take(N as u64, what)?;
        Ok(decode(
            bytes.try_into().expect("take returns as many bytes as asked for"),
        ))
    }

    pub(super) fn u32(&mut self, what: &dyn Display) -> Result<u32, Fault> {
        self.number(u32::from_le_bytes, what)
    }

    pub(super) fn u64(&mut self, what: &dyn Display) -> Result<u64, Fault> {
        self.number(u64::from_le_bytes, what)
    }

    /// A count of things of at least `least_bytes` each, refused if the rest of the file cannot
    /// hold that many.
    pub(super) fn count(&mut self, least_bytes: usize, what: &dyn Display) -> Result<usize, Fault> {
        let count = self.u64(what)?;
        let most = self.left() / least_bytes.max(1);
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= most)
            .ok_or_else(|| Fault::TooMany {
                what: what.to_string(),
                count,
                left: self.left() as u64,
            })
    }

    /// A string: its length as 64 bits, then UTF-8.
    pub(super) fn string(&mut self, what: &dyn Display) -> Result<&'a str, Fault> {
        let len = self.u64(what)?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes).map_err(|_| Fault::NotUtf8 {
            what: what.to_string(),
        })
    }

    /// A string that names something: as [`Cursor::string`], but at most [`NAME_LIMIT`] bytes.
    pub(super) fn name(&mut self, what: &dyn Display) -> Result<&'a str, Fault> {
        let name = self.string(what)?;
        let len = name.len() as u64;
        if len > NAME_LIMIT {
            return Err(Fault::TooLong {
                what: what.to_string(),
                len,
                limit: NAME_LIMIT,
            });
        }
        Ok(name)
    }
}
