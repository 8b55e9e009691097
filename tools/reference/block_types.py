#!/usr/bin/env python3
"""Makes the fixtures that the GGUF reader and the block decoders are tested against.

    python3 tools/reference/block_types.py crates/weights/tests/fixtures

Writes, with the `gguf` package (llama.cpp's own):

    block_types.gguf         a matrix of every block type that multigraft reads, and a metadata pair
                             of every type
    block_types.safetensors  each matrix as `gguf.quants.dequantize` decodes it, in float32

If the package can quantise a block type, the blocks are a quantised random matrix. It can only
decode the K-quants: their blocks are random bytes with finite scales, which also reach bit patterns
that a quantiser rarely makes. Every type with a scale has a second matrix of such random blocks.
"""

import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants
from safetensors.numpy import save_file

# Two rows of two blocks of the largest type.
ROWS, COLS = 2, 512

# Where each block type keeps its float16 scales, in half-words from the start of a block.
SCALES = {
    Type.Q4_0: [0],
    Type.Q4_1: [0, 1],
    Type.Q5_0: [0],
    Type.Q5_1: [0, 1],
    Type.Q8_0: [0],
    Type.Q4_K: [0, 1],
    Type.Q5_K: [0, 1],
    Type.Q6_K: [104],
}


def random_blocks(rng: np.random.Generator, kind: Type) -> np.ndarray:
    """Bytes of a [ROWS, COLS] matrix: random blocks with scales of a usual size."""
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (ROWS * COLS // block_len, block_bytes), dtype=np.uint8)
    for place in SCALES[kind]:
        scale = (rng.uniform(0.001, 0.1, len(blocks)) * rng.choice([-1, 1], len(blocks))).astype(np.float16)
        blocks[:, 2 * place : 2 * place + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(ROWS, -1)


def main(folder: Path) -> None:
    rng = np.random.default_rng(20261123)
    writer = gguf.GGUFWriter(folder / "block_types.gguf", "test")
    add_metadata(writer)
    expected: dict[str, np.ndarray] = {}

    def add(name: str, data: np.ndarray, kind: Type) -> None:
        writer.add_tensor(name, data, raw_dtype=kind)
        expected[name] = quants.dequantize(data, kind).reshape(ROWS, COLS).astype(np.float32)

    values = rng.normal(0, 1, (ROWS, COLS)).astype(np.float32)
    add("F32", values, Type.F32)
    add("F16", values.astype(np.float16), Type.F16)
    add("BF16", quants.quantize(values, Type.BF16), Type.BF16)
    for kind in SCALES:
        try:
            add(kind.name, quants.quantize(values, kind), kind)
        except NotImplementedError:
            pass
        add(f"{kind.name}.random", random_blocks(rng, kind), kind)
    # A vector and a tensor of three dimensions, to test the order of dimensions.
    for shape in [(5,), (3, 2, 7)]:
        name = "x".join(map(str, shape))
        array = rng.normal(0, 1, shape).astype(np.float32)
        writer.add_tensor(name, array)
        expected[name] = array

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, folder / "block_types.safetensors", metadata={"made_by": "tools/reference/block_types.py"})


def add_metadata(writer: gguf.GGUFWriter) -> None:
    """Adds one pair of every value type, at the ends of its range."""
    writer.add_uint8("test.u8", 255)
    writer.add_int8("test.i8", -128)
    writer.add_uint16("test.u16", 65535)
    writer.add_int16("test.i16", -32768)
    writer.add_uint32("test.u32", 2**32 - 1)
    writer.add_int32("test.i32", -(2**31))
    writer.add_uint64("test.u64", 2**64 - 1)
    writer.add_int64("test.i64", -(2**63))
    writer.add_float32("test.f32", 0.1)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "grün 🌱")
    writer.add_array("test.strings", ["", "a", "äöü"])
    writer.add_array("test.i32s", [1, -2, 3])
    writer.add_array("test.f32s", [0.5, -0.25])
    writer.add_array("test.bools", [True, False])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
