//! What the GGUF reader accepts, what it refuses, and how it says so.

use crate::builders::{GgufBuilder, array, string, strings};
use multigraft_weights::gguf::{Gguf, Value};
use multigraft_weights::{BlockType, Fault, WeightsError};

fn fault(builder: &GgufBuilder) -> Fault {
    fault_of(builder.build())
}

fn fault_of(bytes: Vec<u8>) -> Fault {
    match Gguf::from_bytes("some.gguf", bytes).unwrap_err() {
        WeightsError::Invalid { path, fault } => {
            assert_eq!(path.to_str(), Some("some.gguf"));
            fault
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_valid_file_is_read_in_both_versions() {
    for version in [2, 3] {
        let bytes = GgufBuilder {
            version,
            ..GgufBuilder::small()
        }
        .build();
        let gguf = Gguf::from_bytes("some.gguf", bytes).unwrap();
        let metadata = gguf.metadata();
        assert_eq!(
            metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(),
            [
                "general.architecture",
                "llama.block_count",
                "tokenizer.ggml.tokens",
                "tokenizer.ggml.scores"
            ]
        );
        assert_eq!(metadata.str("general.architecture"), Some("llama"));
        assert_eq!(
            metadata.strings("tokenizer.ggml.tokens").unwrap(),
            ["<s>", "a", "ä"]
        );
        assert_eq!(gguf.tensors().map(|t| t.name).collect::<Vec<_>>(), ["norm", "w"]);
        let matrix = gguf.require("w").unwrap();
        assert_eq!(
            (matrix.shape, matrix.block_type),
            ([2, 32].as_slice(), BlockType::Q8_0)
        );
        assert_eq!(matrix.bytes, [1; 68]);
    }
}

#[test]
fn a_mapped_file_equals_the_same_bytes_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    let bytes = GgufBuilder::small().build();
    std::fs::write(&path, &bytes).unwrap();
    let (mapped, owned) = (Gguf::open(&path).unwrap(), Gguf::from_bytes("a", bytes).unwrap());
    assert_eq!(mapped.path(), path);
    assert_eq!(mapped.metadata(), owned.metadata());
    for (a, b) in mapped.tensors().zip(owned.tensors()) {
        assert_eq!((a.name, a.shape, a.bytes), (b.name, b.shape, b.bytes));
    }
}

#[test]
fn a_number_is_read_from_any_type_it_fits_and_from_no_other() {
    let bytes = GgufBuilder::default()
        .pair("small", 0, &[7])
        .pair("wide", 10, &7_u64.to_le_bytes())
        .pair("huge", 10, &u64::MAX.to_le_bytes())
        .pair("negative", 5, &(-7_i32).to_le_bytes())
        .pair("float", 6, &7_f32.to_le_bytes())
        .pair("double", 12, &0.5_f64.to_le_bytes())
        .pair("bytes", 9, &array(0, 2, &[1, 2]))
        .pair("signed", 9, &array(1, 2, &[1, 0xff]))
        .pair("truths", 9, &array(7, 2, &[1, 0]))
        .pair("doubles", 9, &array(12, 1, &0.25_f64.to_le_bytes()))
        .pair(
            "nested",
            9,
            &array(9, 2, &[array(0, 1, &[5]), strings(&["x"])].concat()),
        )
        .build();
    let gguf = Gguf::from_bytes("numbers", bytes).unwrap();
    let m = gguf.metadata();
    assert_eq!(
        (m.u32("small"), m.u32("wide"), m.u64("huge")),
        (Some(7), Some(7), Some(u64::MAX))
    );
    for key in ["huge", "negative", "float", "absent", "bytes"] {
        assert_eq!(m.u32(key), None, "{key}");
    }
    assert_eq!(
        (m.f32("float"), m.f32("double"), m.f32("small")),
        (Some(7.0), Some(0.5), None)
    );
    assert_eq!(
        (m.u32s("bytes"), m.i32s("signed")),
        (Some(vec![1, 2]), Some(vec![1, -1]))
    );
    assert_eq!(
        (m.u32s("signed"), m.u32s("truths"), m.u32s("small")),
        (None, None, None)
    );
    assert_eq!(m.bools("truths"), Some([true, false].as_slice()));
    assert_eq!(m.f32s("doubles").as_deref(), Some([0.25].as_slice()));
    assert!(matches!(m.get("nested"), Some(Value::Array(nested)) if nested.len() == 2));
}

#[test]
fn files_of_other_kinds_are_named() {
    assert_eq!(fault_of(Vec::new()), Fault::Empty);
    assert_eq!(
        fault(&GgufBuilder {
            magic: *b"GGML",
            ..Default::default()
        }),
        Fault::NotGguf(*b"GGML")
    );
    for version in [0, 1, 4, u32::MAX] {
        assert_eq!(
            fault(&GgufBuilder {
                version,
                ..Default::default()
            }),
            Fault::GgufVersion(version)
        );
    }
    assert_eq!(
        fault(&GgufBuilder {
            version: 3_u32.swap_bytes(),
            ..Default::default()
        }),
        Fault::BigEndian
    );
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Gguf::open(folder.path()),
        Err(WeightsError::NotAFile { .. })
    ));
    assert!(matches!(
        Gguf::open(&folder.path().join("absent")),
        Err(WeightsError::Read { .. })
    ));
    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, []).unwrap();
    assert!(matches!(
        Gguf::open(&empty),
        Err(WeightsError::Invalid {
            fault: Fault::Empty,
            ..
        })
    ));
}

#[test]
fn a_count_that_the_file_cannot_hold_is_refused_before_memory_is_taken() {
    let absurd = 1 << 60;
    let tensors = fault(&GgufBuilder {
        tensor_count: Some(absurd),
        ..GgufBuilder::small()
    });
    assert!(
        matches!(tensors, Fault::TooMany { ref what, count, .. } if what.contains("tensors") && count == absurd)
    );
    let pairs = fault(&GgufBuilder {
        pair_count: Some(u64::MAX),
        ..GgufBuilder::small()
    });
    assert!(matches!(pairs, Fault::TooMany { ref what, .. } if what.contains("metadata pairs")));
    for type_id in 0..=12 {
        let elements = fault(&GgufBuilder::default().pair("some.key", 9, &array(type_id, absurd, &[0; 64])));
        assert!(
            matches!(elements, Fault::TooMany { ref what, count, .. } if what.contains("some.key") && count == absurd),
            "{elements}"
        );
    }
    let text = fault(&GgufBuilder::default().pair("some.key", 8, &absurd.to_le_bytes()));
    assert!(
        matches!(text, Fault::Truncated { ref what, needed, .. } if what.contains("some.key") && needed == absurd)
    );
}

#[test]
fn a_header_cannot_fill_a_large_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.gguf");
    let claimed = 300 << 20;
    std::fs::write(
        &path,
        GgufBuilder::default()
            .pair("some.key", 9, &array(0, claimed, &[]))
            .build(),
    )
    .unwrap();
    // A sparse file: it has the size but takes no room.
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(claimed + (1 << 20))
        .unwrap();
    match Gguf::open(&path).unwrap_err() {
        WeightsError::Invalid {
            fault: Fault::PastHeaderLimit { what, .. },
            ..
        } => assert!(what.contains("some.key")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn arrays_nest_four_deep_and_no_deeper() {
    let nested = |depth| (1..depth).fold(array(0, 1, &[5]), |inner, _| array(9, 1, &inner));
    assert!(Gguf::from_bytes("x", GgufBuilder::default().pair("k", 9, &nested(4)).build()).is_ok());
    let deep = fault(&GgufBuilder::default().pair("k", 9, &nested(5)));
    assert_eq!(
        deep,
        Fault::NestedTooDeep {
            what: "metadata key `k`".into(),
            limit: 4
        }
    );
}

#[test]
fn bad_metadata_is_named_by_its_key() {
    let unknown = fault(&GgufBuilder::default().pair("k", 13, &[0; 8]));
    assert_eq!(
        unknown,
        Fault::UnknownValueType {
            what: "metadata key `k`".into(),
            id: 13
        }
    );
    let element = fault(&GgufBuilder::default().pair("k", 9, &array(99, 1, &[0; 8])));
    assert_eq!(
        element,
        Fault::UnknownValueType {
            what: "an element of metadata key `k`".into(),
            id: 99
        }
    );
    let truth = fault(&GgufBuilder::default().pair("k", 7, &[2]));
    assert_eq!(
        truth,
        Fault::NotABool {
            what: "metadata key `k`".into(),
            byte: 2
        }
    );
    let text = fault(&GgufBuilder::default().pair("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]));
    assert_eq!(
        text,
        Fault::NotUtf8 {
            what: "metadata key `k`".into()
        }
    );
    let twice = fault(&GgufBuilder::default().pair("k", 0, &[1]).pair("k", 0, &[1]));
    assert_eq!(twice, Fault::DuplicateKey("k".into()));
    let long = fault(&GgufBuilder::default().pair(&"k".repeat(65_536), 0, &[1]));
    assert!(matches!(long, Fault::TooLong { len: 65_536, .. }));
}

#[test]
fn alignment_is_the_files_and_must_make_sense() {
    let with = |type_id, value: &[u8]| GgufBuilder::default().pair("general.alignment", type_id, value);
    let mut wide = with(4, &256_u32.to_le_bytes())
        .tensor("a", &[1], 0, 0)
        .tensor("b", &[1], 0, 256);
    wide.alignment = 256;
    wide.data = vec![0; 260];
    wide.data[256] = 1;
    let gguf = Gguf::from_bytes("wide", wide.build()).unwrap();
    assert_eq!(gguf.tensor("b").unwrap().bytes, [1, 0, 0, 0]);

    for bad in [0_u32, 3, 33, 1 << 21, u32::MAX] {
        assert_eq!(
            fault(&with(4, &bad.to_le_bytes())),
            Fault::BadAlignment(bad.to_string())
        );
    }
    assert!(matches!(fault(&with(8, &string("32"))), Fault::BadAlignment(_)));
    let misaligned = fault(&GgufBuilder::default().tensor("a", &[1], 0, 4).data(&[0; 64]));
    assert_eq!(
        misaligned,
        Fault::Misaligned {
            tensor: "a".into(),
            offset: 4,
            alignment: 32
        }
    );
}

#[test]
fn a_bad_tensor_is_named() {
    let fault_of = |dims: &[u64], type_id, offset| {
        fault(
            &GgufBuilder::default()
                .tensor("blk.0.w", dims, type_id, offset)
                .data(&[0; 256]),
        )
    };
    assert!(matches!(
        fault_of(&[1; 5], 0, 0),
        Fault::BadDimensions { dims: 5, .. }
    ));
    assert!(matches!(
        fault_of(&[], 0, 0),
        Fault::BadDimensions { dims: 0, .. }
    ));
    assert!(matches!(fault_of(&[4, 0], 0, 0), Fault::ZeroDimension { .. }));
    assert!(matches!(
        fault_of(&[1 << 40, 1 << 40], 0, 0),
        Fault::ShapeOverflow { .. }
    ));
    assert!(matches!(fault_of(&[1 << 62], 0, 0), Fault::ShapeOverflow { .. }));
    assert!(matches!(
        fault_of(&[u64::MAX, 1, 1, 1], 0, 0),
        Fault::ShapeOverflow { .. }
    ));
    assert!(matches!(
        fault_of(&[48], 2, 0),
        Fault::PartialBlock {
            cols: 48,
            block: 32,
            block_type: "Q4_0",
            ..
        }
    ));
    // 4 × 64 weights are whole blocks, but each row must be.
    assert!(matches!(
        fault_of(&[4, 64], 12, 0),
        Fault::PartialBlock {
            cols: 4,
            block: 256,
            ..
        }
    ));
    assert!(matches!(
        fault_of(&[65], 0, 0),
        Fault::Truncated { needed: 260, .. }
    ));
    assert!(matches!(
        fault_of(&[4], 0, 256),
        Fault::Truncated { needed: 16, .. }
    ));
    assert!(matches!(
        fault_of(&[4], 0, u64::MAX - 31),
        Fault::Truncated { .. }
    ));
    let iq = fault_of(&[256], 16, 0).to_string();
    assert!(
        iq.contains("blk.0.w") && iq.contains("IQ2_XXS") && iq.contains("Q4_K"),
        "{iq}"
    );
}

#[test]
fn tensors_have_their_own_names_and_bytes() {
    let two = |second, offset| {
        fault(
            &GgufBuilder::default()
                .tensor("a", &[16], 0, 0)
                .tensor(second, &[4], 0, offset)
                .data(&[0; 128]),
        )
    };
    assert_eq!(two("a", 64), Fault::DuplicateTensor("a".into()));
    assert_eq!(
        two("b", 32),
        Fault::Overlap {
            first: "a".into(),
            second: "b".into()
        }
    );
    assert_eq!(
        two("b", 0),
        Fault::Overlap {
            first: "a".into(),
            second: "b".into()
        }
    );
}

#[test]
fn messages_are_sentences_that_name_the_file_and_escape_its_text() {
    let bytes = GgufBuilder::default().pair("k\u{1b}[31m", 13, &[0; 8]).build();
    let message = Gguf::from_bytes("dir/some.gguf", bytes).unwrap_err().to_string();
    assert_eq!(
        message,
        r"`dir/some.gguf`: metadata key `k\u{1b}[31m` has type 13, which GGUF does not define"
    );
    let gguf = Gguf::from_bytes("dir/some.gguf", GgufBuilder::small().build()).unwrap();
    assert_eq!(
        gguf.require("v").unwrap_err().to_string(),
        "`dir/some.gguf` has no tensor `v`"
    );
}
