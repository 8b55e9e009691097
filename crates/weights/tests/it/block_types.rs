//! Every block type against llama.cpp's own Python package. `tools/reference/block_types.py` made
//! the fixtures.

use std::path::{Path, PathBuf};

use multigraft_weights::gguf::{Array, Gguf, Value};
use multigraft_weights::safetensors::Checkpoint;
use multigraft_weights::{BlockType, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

#[test]
fn every_block_type_decodes_as_in_the_reference() {
    let gguf = Gguf::open(&fixture("block_types.gguf")).unwrap();
    let expected = Checkpoint::open_file(&fixture("block_types.safetensors")).unwrap();
    assert_eq!(gguf.tensors().count(), expected.tensors().count());
    for tensor in gguf.tensors() {
        let Tensor {
            name,
            shape,
            block_type,
            ..
        } = tensor;
        let reference = expected.require(name).unwrap();
        assert_eq!(shape, reference.shape, "{name}");
        for (i, (a, b)) in tensor.to_f32().into_iter().zip(reference.to_f32()).enumerate() {
            // Equal floats, except that 0 and -0 are one.
            assert_eq!(a, b, "{name} ({}) weight {i}", block_type.name());
        }
    }
    for kind in BlockType::ALL {
        assert!(
            gguf.tensors().any(|t| t.block_type == kind),
            "the fixture has no {}",
            kind.name()
        );
    }
}

#[test]
fn dimensions_are_outermost_first() {
    let gguf = Gguf::open(&fixture("block_types.gguf")).unwrap();
    let cube = gguf.tensor("3x2x7").unwrap();
    assert_eq!(
        (cube.shape, cube.len(), cube.rows(), cube.cols()),
        ([3, 2, 7].as_slice(), 42, 6, 7)
    );
    let vector = gguf.tensor("5").unwrap();
    assert_eq!(
        (vector.shape, vector.len(), vector.rows(), vector.cols()),
        ([5].as_slice(), 5, 1, 5)
    );
}

#[test]
fn every_metadata_type_is_read() {
    let gguf = Gguf::open(&fixture("block_types.gguf")).unwrap();
    let metadata = gguf.metadata();
    let expected = [
        ("u8", Value::U8(u8::MAX)),
        ("i8", Value::I8(i8::MIN)),
        ("u16", Value::U16(u16::MAX)),
        ("i16", Value::I16(i16::MIN)),
        ("u32", Value::U32(u32::MAX)),
        ("i32", Value::I32(i32::MIN)),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f32", Value::F32(0.1)),
        ("f64", Value::F64(0.1)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("grün 🌱".into())),
        (
            "strings",
            Value::Array(Array::String(vec!["".into(), "a".into(), "äöü".into()])),
        ),
        ("i32s", Value::Array(Array::I32(vec![1, -2, 3]))),
        ("f32s", Value::Array(Array::F32(vec![0.5, -0.25]))),
        ("bools", Value::Array(Array::Bool(vec![true, false]))),
    ];
    for (key, value) in expected {
        assert_eq!(metadata.get(&format!("test.{key}")), Some(&value), "{key}");
    }
}
