#!/usr/bin/env python3
"""A Llama-like GGUF model of any shape with random Q4_0 or BF16 weights.

    python random_model.py --vocabulary SmolLM2.gguf --out mistral-7b-random.Q4_0.gguf

The default shape is that of Mistral-7B. The model serves to measure speed and memory if no real
weights are available. The tokenizer is the first --vocab tokens of a GGUF model with byte-level
BPE. Weights are scaled so that activations keep their size from layer to layer. The generated text
is noise; it does not end early if the load generator ignores end tokens.

Needs numpy and gguf.
"""
import argparse
import pathlib

import gguf
import numpy as np

BLOCK = 32  # weights in a block of Q4_0
BLOCK_BYTES = 18  # an f16 scale and 32 nibbles
NIBBLE_STD = 4.61  # standard deviation of a uniform draw from 0..15

TOKENIZER = [
    "model", "pre", "tokens", "token_type", "merges", "bos_token_id", "eos_token_id", "unknown_token_id",
    "padding_token_id", "add_bos_token", "add_space_prefix",
]


def random_q4_0(random, rows, columns):
    """[rows, columns / 32 * 18] bytes; the standard deviation is about 1 / sqrt(columns)."""
    blocks = rows * columns // BLOCK
    data = np.frombuffer(bytearray(random.bytes(blocks * BLOCK_BYTES)), np.uint8).reshape(blocks, BLOCK_BYTES)
    scales = random.uniform(0.8, 1.2, blocks) / (NIBBLE_STD * columns**0.5)
    data[:, :2] = scales.astype("<f2").view(np.uint8).reshape(blocks, 2)
    return data.reshape(rows, -1)


def random_bf16(random, rows, columns):
    """[rows, columns * 2] bytes; the standard deviation is about 1 / sqrt(columns).

    Each weight is a sign and 0.5 to 1 times a power of two.
    """
    bits = np.frombuffer(bytearray(random.bytes(rows * columns * 2)), np.uint16)
    exponent = round(np.log2(1.3 / columns**0.5)) - 1
    bits &= 0x807F
    bits |= np.uint16((127 + exponent) << 7)
    return bits.view(np.uint8).reshape(rows, -1)


def tensors(args):
    """(name, rows, columns) of each matrix and (name, length, None) of each norm, in file order."""
    head = args.hidden // args.heads
    q, kv = args.heads * head, args.kv_heads * head
    yield "token_embd.weight", args.vocab, args.hidden
    for layer in range(args.layers):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", args.hidden, None
        yield block + "attn_q.weight", q, args.hidden
        yield block + "attn_k.weight", kv, args.hidden
        yield block + "attn_v.weight", kv, args.hidden
        yield block + "attn_output.weight", args.hidden, q
        yield block + "ffn_norm.weight", args.hidden, None
        yield block + "ffn_gate.weight", args.ffn, args.hidden
        yield block + "ffn_up.weight", args.ffn, args.hidden
        yield block + "ffn_down.weight", args.hidden, args.ffn
    yield "output_norm.weight", args.hidden, None
    yield "output.weight", args.vocab, args.hidden


def copy_tokenizer(writer, donor, vocab):
    """Copies the donor's tokenizer, cut to its first `vocab` tokens and the merges among them."""
    fields = gguf.GGUFReader(donor).fields
    for key in TOKENIZER:
        name = f"tokenizer.ggml.{key}"
        if name not in fields:
            continue
        value = fields[name].contents()
        if key in ("tokens", "token_type"):
            value = value[:vocab]
        if key == "tokens":
            kept = set(value)
            if len(value) < vocab:
                raise SystemExit(f"{donor} has {len(value)} tokens, fewer than --vocab {vocab}")
        if key == "merges":
            value = [m for m in value if m.replace(" ", "") in kept and set(m.split(" ")) <= kept]
        types = fields[name].types
        writer.add_key_value(name, value, types[0], types[1] if len(types) > 1 else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=pathlib.Path, required=True, help="a GGUF file with a tokenizer")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    for name, default in dict(layers=32, hidden=4096, ffn=14336, heads=32, kv_heads=8, vocab=32000).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--context", type=int, default=32768)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="BF16 in place of Q4_0")
    args = parser.parse_args()

    writer = gguf.GGUFWriter(args.out, "llama")
    writer.add_name(args.out.stem)
    writer.add_block_count(args.layers)
    writer.add_context_length(args.context)
    writer.add_embedding_length(args.hidden)
    writer.add_feed_forward_length(args.ffn)
    writer.add_head_count(args.heads)
    writer.add_head_count_kv(args.kv_heads)
    writer.add_rope_dimension_count(args.hidden // args.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(args.vocab)
    kind = gguf.GGMLQuantizationType.BF16 if args.bf16 else gguf.GGMLQuantizationType.Q4_0
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if args.bf16 else gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    copy_tokenizer(writer, args.vocabulary, args.vocab)

    for name, rows, columns in tensors(args):
        if columns is None:
            writer.add_tensor_info(name, (rows,), np.dtype(np.float32), rows * 4)
        else:
            width = 2 * columns if args.bf16 else columns // BLOCK * BLOCK_BYTES
            writer.add_tensor_info(name, (rows, width), np.dtype(np.uint8), rows * width, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(args.seed)
    matrix = random_bf16 if args.bf16 else random_q4_0
    for name, rows, columns in tensors(args):
        norm = columns is None
        writer.write_tensor_data(np.ones(rows, np.float32) if norm else matrix(random, rows, columns))
    writer.close()


if __name__ == "__main__":
    main()
