//! Damaged files give an error or a file whose every view is in bounds: never a panic.

use std::path::Path;

use crate::builders::{GgufBuilder, small_safetensors};
use multigraft_weights::gguf::Gguf;
use multigraft_weights::safetensors::Checkpoint;
use proptest::prelude::*;

/// Reads everything that an opened file offers.
fn read_gguf(bytes: Vec<u8>) {
    let Ok(gguf) = Gguf::from_bytes("damaged", bytes) else {
        return;
    };
    for (key, _) in gguf.metadata().iter() {
        let m = gguf.metadata();
        _ = (
            m.str(key),
            m.u32(key),
            m.f32(key),
            m.bool(key),
            m.strings(key),
            m.f32s(key),
            m.u32s(key),
            m.i32s(key),
        );
    }
    for tensor in gguf.tensors() {
        assert_eq!(tensor.to_f32().len(), tensor.rows() * tensor.cols());
    }
}

fn read_safetensors(bytes: &[u8]) {
    let Ok(checkpoint) = Checkpoint::from_bytes("damaged", bytes.to_vec()) else {
        return;
    };
    for tensor in checkpoint.tensors() {
        assert_eq!(tensor.to_f32().len(), tensor.rows() * tensor.cols());
    }
    for (name, ..) in checkpoint.others() {
        _ = checkpoint.i64s(name);
    }
    // Whatever is accepted here the reference implementation accepts too, unless it does not know
    // the dtype.
    if let Err(error) = ::safetensors::SafeTensors::deserialize(bytes) {
        let reason = error.to_string();
        assert!(
            reason.contains("unknown variant"),
            "the reference refuses what was accepted: {reason}"
        );
    }
}

/// The file with some bytes replaced.
fn damage(
    mut bytes: Vec<u8>,
    flips: &[(prop::sample::Index, u8)],
    end: Option<prop::sample::Index>,
) -> Vec<u8> {
    for (place, byte) in flips {
        let place = place.index(bytes.len());
        bytes[place] = *byte;
    }
    if let Some(end) = end {
        bytes.truncate(end.index(bytes.len()));
    }
    bytes
}

/// The fixture with every block type and metadata type, without most of its data.
fn gguf_fixture() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/block_types.gguf")).unwrap()
}

#[test]
fn a_gguf_cut_at_any_length_is_an_error() {
    let whole = gguf_fixture();
    // The file may end in padding.
    let end = whole.len() - 32;
    for len in 0..end {
        assert!(
            Gguf::from_bytes("cut", whole[..len].to_vec()).is_err(),
            "cut at {len}"
        );
    }
}

#[test]
fn every_single_byte_of_a_header_may_be_anything() {
    let whole = GgufBuilder::small().build();
    for place in 0..whole.len() - 100 {
        for byte in [0, 1, 0x7f, 0x80, 0xff, whole[place].wrapping_add(1)] {
            let mut bytes = whole.clone();
            bytes[place] = byte;
            read_gguf(bytes);
        }
    }
    let whole = small_safetensors();
    for place in 0..whole.len() - 48 {
        for byte in [0, b'0', b'9', b'"', b'{', b'}', b',', b'-', 0xff] {
            let mut bytes = whole.clone();
            bytes[place] = byte;
            read_safetensors(&bytes);
        }
    }
}

fn flips(most: usize) -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_damaged_gguf_never_panics(flips in flips(8), end in any::<Option<prop::sample::Index>>()) {
        read_gguf(damage(GgufBuilder::small().build(), &flips, end));
    }

    #[test]
    fn a_damaged_safetensors_never_panics(flips in flips(4), end in any::<Option<prop::sample::Index>>()) {
        read_safetensors(&damage(small_safetensors(), &flips, end));
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200), json in "\\{[\"a:\\[\\],0-9{}]{0,60}\\}") {
        read_gguf([b"GGUF\x03\0\0\0".as_slice(), &noise].concat());
        read_gguf(noise.clone());
        read_safetensors(&noise);
        read_safetensors(&crate::builders::safetensors(&json, &[]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_damaged_gguf_of_every_block_type_never_panics(flips in flips(8)) {
        let mut bytes = gguf_fixture();
        // The flips all go into the header.
        let data = bytes.split_off(1_400);
        let mut damaged = damage(bytes, &flips, None);
        damaged.extend(data);
        read_gguf(damaged);
    }
}
