//! Any bytes as a safetensors file: an error, or a file of which everything can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use multigraft_weights::safetensors::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_bytes("fuzz", bytes.to_vec()) else { return };
    let mut floats = 0;
    for tensor in checkpoint.tensors() {
        assert_eq!(checkpoint.require(tensor.name).expect("it was listed").bytes, tensor.bytes);
        assert_eq!(tensor.to_f32().len(), tensor.rows() * tensor.cols());
        floats += tensor.bytes.len();
    }
    assert!(floats <= bytes.len());
    for (name, dtype, shape) in checkpoint.others() {
        let elements = checkpoint.i64s(name).map(|values| values.len());
        assert!(dtype != "I64" || elements == Some(shape.iter().product()));
    }
});
