//! Writing GGUF: small files such as adapters, whose tensors are in memory.

use std::io::{self, Write};

use multigraft_kernels::BlockType;

use crate::tensor::Tensor;

const VERSION: u32 = 3;
/// GGUF's alignment of tensor data where the file does not say another.
const ALIGNMENT: usize = 32;

/// A metadata value to write.
#[derive(Clone, Copy, Debug)]
pub enum Pair<'a> {
    /// A string.
    Text(&'a str),
    /// A float.
    F32(f32),
    /// An unsigned integer.
    U32(u32),
}

/// Writes a GGUF file of version 3.
///
/// # Errors
/// If `out` does, or if a tensor is stored as something else than plain floats.
pub fn write(out: &mut impl Write, pairs: &[(&str, Pair<'_>)], tensors: &[Tensor<'_>]) -> io::Result<()> {
    let mut header = Vec::new();
    header.extend(b"GGUF");
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((pairs.len() as u64).to_le_bytes());
    for (key, value) in pairs {
        text(&mut header, key);
        match value {
            Pair::U32(value) => {
                header.extend(4u32.to_le_bytes());
                header.extend(value.to_le_bytes());
            }
            Pair::F32(value) => {
                header.extend(6u32.to_le_bytes());
                header.extend(value.to_le_bytes());
            }
            Pair::Text(value) => {
                header.extend(8u32.to_le_bytes());
                text(&mut header, value);
            }
        }
    }
    let mut offset = 0;
    for tensor in tensors {
        text(&mut header, tensor.name);
        header.extend(
            u32::try_from(tensor.shape.len())
                .map_err(io::Error::other)?
                .to_le_bytes(),
        );
        for &size in tensor.shape.iter().rev() {
            header.extend((size as u64).to_le_bytes());
        }
        let kind: u32 = match tensor.block_type {
            BlockType::F32 => 0,
            BlockType::F16 => 1,
            BlockType::Bf16 => 30,
            other => return Err(io::Error::other(format!("{} is not written", other.name()))),
        };
        header.extend(kind.to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    out.write_all(&header)?;
    for tensor in tensors {
        out.write_all(tensor.bytes)?;
        let padding = tensor.bytes.len().next_multiple_of(ALIGNMENT) - tensor.bytes.len();
        out.write_all(&[0; ALIGNMENT][..padding])?;
    }
    Ok(())
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Gguf;

    #[test]
    fn what_is_written_is_read_again() {
        let (one, other) = (
            [1.0f32, -2.0, 3.5].map(f32::to_le_bytes).concat(),
            vec![0u8, 60, 0, 188],
        );
        let tensor = |name, shape, block_type, bytes| Tensor {
            name,
            shape,
            block_type,
            bytes,
        };
        let tensors = [
            tensor("one", &[1, 3], BlockType::F32, &one),
            tensor("other", &[2, 1], BlockType::F16, other.as_slice()),
        ];
        let pairs = [("a", Pair::Text("b")), ("c", Pair::F32(0.5)), ("d", Pair::U32(7))];
        let mut bytes = Vec::new();
        write(&mut bytes, &pairs, &tensors).expect("memory takes everything");
        let read = Gguf::from_bytes("written", bytes).expect("it is valid");
        let metadata = read.metadata();
        assert_eq!(
            (metadata.str("a"), metadata.f32("c"), metadata.u32("d")),
            (Some("b"), Some(0.5), Some(7))
        );
        for (read, written) in read.tensors().zip(tensors) {
            assert_eq!(
                (read.name, read.shape, read.bytes),
                (written.name, written.shape, written.bytes)
            );
        }
    }
}
