//! What the safetensors reader accepts, what it refuses, and how it says so.

use crate::builders::{safetensors, small_safetensors};
use multigraft_weights::safetensors::Checkpoint;
use multigraft_weights::{BlockType, Fault, WeightsError};

fn fault(bytes: Vec<u8>) -> Fault {
    match Checkpoint::from_bytes("some.safetensors", bytes).unwrap_err() {
        WeightsError::Invalid { path, fault } => {
            assert_eq!(path.to_str(), Some("some.safetensors"));
            fault
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn floats_of_every_width_are_read() {
    let checkpoint = Checkpoint::from_bytes("small", small_safetensors()).unwrap();
    assert_eq!(
        checkpoint.tensors().map(|t| t.name).collect::<Vec<_>>(),
        ["w", "h", "b"]
    );
    let w = checkpoint.tensor("w").unwrap();
    assert_eq!((w.shape, w.block_type), ([2, 3].as_slice(), BlockType::F32));
    assert_eq!(w.to_f32(), [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]);
    for (name, block_type) in [("h", BlockType::F16), ("b", BlockType::Bf16)] {
        let tensor = checkpoint.require(name).unwrap();
        assert_eq!(
            (tensor.block_type, tensor.to_f32()),
            (block_type, vec![1.0, -2.0])
        );
    }
    assert_eq!(checkpoint.metadata()["format"], "pt");
}

#[test]
fn another_dtype_spoils_only_its_own_tensor() {
    let checkpoint = Checkpoint::from_bytes("small", small_safetensors()).unwrap();
    assert_eq!(
        checkpoint.others().collect::<Vec<_>>(),
        [("ids", "I64", [2].as_slice())]
    );
    assert_eq!(checkpoint.i64s("ids"), Some(vec![7, -1]));
    assert_eq!((checkpoint.i64s("w"), checkpoint.i64s("absent")), (None, None));
    assert_eq!(
        (checkpoint.dtype("ids"), checkpoint.shape("ids")),
        (Some("I64"), Some([2].as_slice()))
    );
    assert!(checkpoint.tensor("ids").is_none());
    assert_eq!(
        checkpoint.require("ids").unwrap_err().to_string(),
        "tensor `ids` in `small` has dtype I64; weights must be F32, F16 or BF16"
    );

    let future = r#"{"x":{"dtype":"F3","shape":[3],"data_offsets":[0,2]},"y":{"dtype":"F32","shape":[],"data_offsets":[2,6]}}"#;
    let checkpoint = Checkpoint::from_bytes("future", safetensors(future, &[0; 6])).unwrap();
    assert_eq!(checkpoint.dtype("x"), Some("F3"));
    assert_eq!(checkpoint.tensor("y").unwrap().to_f32(), [0.0]);
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let whole = small_safetensors();
    for len in 0..whole.len() {
        let fault = fault(whole[..len].to_vec());
        assert!(
            matches!(fault, Fault::Empty | Fault::Truncated { .. }),
            "at {len}: {fault}"
        );
    }
}

#[test]
fn a_header_length_that_lies_is_refused() {
    let with_length = |len: u64| {
        let mut bytes = small_safetensors();
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        fault(bytes)
    };
    assert!(matches!(
        with_length(u64::MAX),
        Fault::HeaderTooLong { len: u64::MAX, .. }
    ));
    assert!(matches!(with_length(1 << 60), Fault::HeaderTooLong { .. }));
    assert!(matches!(
        with_length(99_999_999),
        Fault::Truncated {
            needed: 99_999_999,
            offset: 8,
            ..
        }
    ));
    assert!(matches!(with_length(0), Fault::BadJson { .. }));
    assert!(matches!(with_length(20), Fault::BadJson { .. }));
}

#[test]
fn a_header_must_be_an_object_of_tensors() {
    let bad = |header: &str| match fault(safetensors(header, &[0; 8])) {
        Fault::BadJson {
            what: "the header",
            reason,
        } => reason,
        other => panic!("{header}: {other:?}"),
    };
    assert!(bad("[]").contains("does not start with `{`"));
    assert!(bad(" {}").contains("does not start with `{`"));
    assert!(bad("{").contains("EOF"));
    assert!(bad(r#"{"w":{"dtype":"F32","shape":[2]}}"#).contains("tensor `w`: missing field `data_offsets`"));
    assert!(bad(r#"{"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#).contains("tensor `w`"));
    assert!(bad(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}"#).contains("tensor `w`"));
    assert!(bad(r#"{"w":1e99}"#).contains("tensor `w`"));
    assert!(bad(r#"{"__metadata__":{"a":1}}"#).contains("string"));
    let nested = format!(r#"{{"w":{{"x":{}{}}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert!(bad(&nested).contains("missing field"));
    let entry = r#""w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    assert!(bad(&format!("{{{entry},{entry}}}")).contains("`w` occurs twice"));
}

/// The fault of a file of tensor `a` and tensor `b` with eight bytes of data.
fn two(a: &str, b: &str) -> Fault {
    fault(safetensors(
        &format!(r#"{{"a":{{"dtype":"U8",{a}}},"b":{{"dtype":"U8",{b}}}}}"#),
        &[0; 8],
    ))
}

#[test]
fn tensors_fill_the_data_without_holes_and_overlaps() {
    let half = r#""shape":[4],"data_offsets":[0,4]"#;
    assert_eq!(
        two(half, r#""shape":[3],"data_offsets":[5,8]"#),
        Fault::Hole {
            bytes: 1,
            what: "tensor `b`".into()
        }
    );
    assert_eq!(
        two(half, r#""shape":[3],"data_offsets":[4,7]"#),
        Fault::Hole {
            bytes: 1,
            what: "the end of the file".into()
        }
    );
    assert_eq!(
        two(half, r#""shape":[5],"data_offsets":[3,8]"#),
        Fault::Overlap {
            first: "a".into(),
            second: "b".into()
        }
    );
    assert!(matches!(
        two(half, r#""shape":[5],"data_offsets":[4,9]"#),
        Fault::Truncated { needed: 5, .. }
    ));
    assert_eq!(
        two(half, r#""shape":[4],"data_offsets":[8,4]"#),
        Fault::BackwardOffsets {
            tensor: "b".into(),
            begin: 8,
            end: 4
        }
    );
    assert!(matches!(
        fault(safetensors("{}", &[0; 8])),
        Fault::Hole { bytes: 8, .. }
    ));
}

#[test]
fn shape_and_dtype_must_match_the_bytes() {
    let fault_of = |dtype: &str, shape: &str| {
        fault(safetensors(
            &format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,8]}}}}"#),
            &[0; 8],
        ))
    };
    for (dtype, shape, expected) in [
        ("F32", "[3]", 12),
        ("BF16", "[2,3]", 12),
        ("U8", "[]", 1),
        ("F4", "[17]", 9),
        ("F32", "[0,2]", 0),
    ] {
        let fault = fault_of(dtype, shape);
        assert!(
            matches!(fault, Fault::SizeMismatch { expected: e, actual: 8, .. } if e == expected),
            "{dtype} {shape}: {fault}"
        );
    }
    assert!(matches!(
        fault_of("F32", "[4294967296,4294967296]"),
        Fault::ShapeOverflow { .. }
    ));
    assert!(matches!(
        fault_of("F32", "[18446744073709551615]"),
        Fault::ShapeOverflow { .. }
    ));
    // No product of some of the dimensions may overflow either.
    assert!(matches!(
        fault_of("F32", "[0,4294967296,4294967296]"),
        Fault::ShapeOverflow { .. }
    ));
    let message = fault_of("F32", "[3]").to_string();
    assert_eq!(
        message,
        "tensor `w` has shape [3] and dtype F32, which take 12 bytes, but its data_offsets span 8"
    );
}

#[test]
fn empty_tensors_and_files_without_tensors_are_read() {
    assert_eq!(
        Checkpoint::from_bytes("none", safetensors("{}", &[]))
            .unwrap()
            .tensors()
            .count(),
        0
    );
    let header = r#"{"e":{"dtype":"F32","shape":[0,3],"data_offsets":[4,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "f":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}   "#;
    let checkpoint = Checkpoint::from_bytes("empty", safetensors(header, &[0; 4])).unwrap();
    assert_eq!(
        checkpoint
            .tensors()
            .map(|t| (t.name, t.len()))
            .collect::<Vec<_>>(),
        [("f", 0), ("a", 1), ("e", 0)]
    );
}
