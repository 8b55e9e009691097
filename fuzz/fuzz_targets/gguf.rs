//! Any bytes as a GGUF file: an error, or a file of which everything can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multigraft_weights::gguf::Gguf;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::from_bytes("fuzz", bytes.to_vec()) else { return };
    let metadata = gguf.metadata();
    for (key, value) in metadata.iter() {
        assert_eq!(metadata.get(key).map(std::mem::discriminant), Some(std::mem::discriminant(value)));
        _ = (metadata.u32(key), metadata.f32(key), metadata.strings(key), metadata.f32s(key), metadata.i32s(key));
    }
    for tensor in gguf.tensors() {
        assert_eq!(gguf.require(tensor.name).expect("it was listed").bytes, tensor.bytes);
        assert_eq!(tensor.to_f32().len(), tensor.rows() * tensor.cols());
    }
});
