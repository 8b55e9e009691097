//! Writing GGUF: small files whose tensors are in memory, such as adapters, and models like one
//! that is there.

use std::borrow::Cow;
use std::io::{self, Write};

use multigraft_kernels::BlockType;

use super::Gguf;
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
/// If `out` does.
pub fn write(out: &mut impl Write, pairs: &[(&str, Pair<'_>)], tensors: &[Tensor<'_>]) -> io::Result<()> {
    let mut written = Vec::new();
    for (key, value) in pairs {
        text(&mut written, key);
        match value {
            Pair::U32(value) => {
                written.extend(4u32.to_le_bytes());
                written.extend(value.to_le_bytes());
            }
            Pair::F32(value) => {
                written.extend(6u32.to_le_bytes());
                written.extend(value.to_le_bytes());
            }
            Pair::Text(value) => {
                written.extend(8u32.to_le_bytes());
                text(&mut written, value);
            }
        }
    }
    let planned: Vec<Planned<'_>> = tensors
        .iter()
        .map(|tensor| Planned {
            name: tensor.name,
            shape: tensor.shape,
            block_type: tensor.block_type,
        })
        .collect();
    let data = |index: usize| Ok(Cow::Borrowed(tensors[index].bytes));
    write_file(out, (pairs.len(), &written), ALIGNMENT, &planned, data)
}

/// A tensor whose data is made while it is written.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// Its name.
    pub name: &'a str,
    /// Outermost first.
    pub shape: &'a [usize],
    /// How its weights are stored.
    pub block_type: BlockType,
}

/// Writes a GGUF file with the metadata of `model` and other tensors. `data` makes the bytes of the
/// tensor of that index, when it is their turn.
///
/// # Errors
/// If `out` or `data` does, or if the data is not as long as the shape says.
pub fn write_like<'a>(
    out: &mut impl Write,
    model: &Gguf,
    tensors: &[Planned<'_>],
    data: impl FnMut(usize) -> io::Result<Cow<'a, [u8]>>,
) -> io::Result<()> {
    let pairs = (model.metadata.iter().count(), &model.bytes[model.pairs.clone()]);
    write_file(out, pairs, model.alignment, tensors, data)
}

fn write_file<'a>(
    out: &mut impl Write,
    (pairs, metadata): (usize, &[u8]),
    alignment: usize,
    tensors: &[Planned<'_>],
    mut data: impl FnMut(usize) -> io::Result<Cow<'a, [u8]>>,
) -> io::Result<()> {
    let mut header = Vec::new();
    header.extend(b"GGUF");
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((pairs as u64).to_le_bytes());
    header.extend(metadata);
    let mut offset = 0;
    let mut sizes = Vec::with_capacity(tensors.len());
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
        header.extend(tensor.block_type.ggml().to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        let size = tensor.block_type.bytes_for(tensor.shape.iter().product());
        let size = size.ok_or_else(|| io::Error::other("a tensor without a size"))?;
        sizes.push(size);
        offset += size.next_multiple_of(alignment);
    }
    header.resize(header.len().next_multiple_of(alignment), 0);
    out.write_all(&header)?;
    for (index, size) in sizes.into_iter().enumerate() {
        let bytes = data(index)?;
        if bytes.len() != size {
            let name = tensors[index].name;
            return Err(io::Error::other(format!(
                "`{name}` has {} bytes, not {size}",
                bytes.len()
            )));
        }
        out.write_all(&bytes)?;
        out.write_all(&vec![0; size.next_multiple_of(alignment) - size])?;
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
        // The same metadata, another tensor.
        let planned = Planned {
            name: "third",
            shape: &[2, 32],
            block_type: BlockType::Q8_0,
        };
        let bytes = vec![7; 2 * 34];
        let mut like = Vec::new();
        let data = |_| Ok(Cow::Borrowed(bytes.as_slice()));
        write_like(&mut like, &read, &[planned], data).expect("memory takes everything");
        let like = Gguf::from_bytes("like", like).expect("it is valid");
        assert_eq!(like.metadata(), read.metadata());
        let third = like.tensor("third").expect("written");
        assert_eq!(
            (third.shape, third.block_type, third.bytes),
            (&[2, 32][..], BlockType::Q8_0, &bytes[..])
        );
        let short = |_| Ok(Cow::Borrowed(&bytes[1..]));
        assert!(write_like(&mut Vec::new(), &read, &[planned], short).is_err());
    }
}
