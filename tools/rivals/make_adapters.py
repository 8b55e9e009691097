#!/usr/bin/env python3
"""Random LoRA adapters for load tests, for any Llama-like base, in PEFT's and llama.cpp's formats.

    python make_adapters.py --base MODEL.gguf --out DIR --count 32 --rank 16
    python make_adapters.py --base config.json --out DIR --rank 8 --targets q_proj,v_proj --no-gguf

Writes DIR/aNN/{adapter_config.json,adapter_model.safetensors} in bf16, which multigraft, vLLM,
mistral.rs and PEFT read, and DIR/aNN.gguf in f16, which llama.cpp reads. Both are the same adapter
except for the rounding. Only the shapes of the base are used. Outputs stay reasonable, but differ
from those of the base and of the other adapters, so that a server that mixes adapters up gives
different text.

Needs numpy and gguf.
"""
import argparse
import dataclasses
import json
import pathlib
import struct

import gguf
import numpy as np

# The name of each linear module in PEFT and in GGUF.
MODULES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
# Architectures whose q and k rows have another order in GGUF than on the Hub.
INTERLEAVED = {"llama"}


@dataclasses.dataclass
class Base:
    name: str
    architecture: str  # as general.architecture in GGUF
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int

    @classmethod
    def from_gguf(cls, path):
        fields = gguf.GGUFReader(path).fields
        architecture = fields["general.architecture"].contents()

        def number(key, default=None):
            field = fields.get(f"{architecture}.{key}")
            return default if field is None else field.contents()

        hidden, heads = number("embedding_length"), number("attention.head_count")
        return cls(path.stem, architecture, number("block_count"), hidden, number("feed_forward_length"),
                   heads, number("attention.head_count_kv", heads),
                   number("attention.key_length", hidden // heads))

    @classmethod
    def from_config(cls, path):
        config = json.loads(path.read_text())
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        # In GGUF, Mistral has the architecture of Llama.
        architecture = {"mistral": "llama"}.get(config["model_type"], config["model_type"])
        return cls(path.resolve().parent.name, architecture, config["num_hidden_layers"], hidden,
                   config["intermediate_size"], heads, config.get("num_key_value_heads", heads),
                   config.get("head_dim") or hidden // heads)

    def shape(self, module):
        """(output, input) features of a linear module."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (q, self.hidden), "k_proj": (kv, self.hidden), "v_proj": (kv, self.hidden),
            "o_proj": (self.hidden, q), "gate_proj": (self.ffn, self.hidden),
            "up_proj": (self.ffn, self.hidden), "down_proj": (self.hidden, self.ffn),
        }[module.split(".")[1]]

    def gguf_rows(self, module, b):
        """Rows of B in GGUF's order: some architectures store each rotated pair side by side."""
        heads = {"self_attn.q_proj": self.heads, "self_attn.k_proj": self.kv_heads}.get(module)
        if heads is None or self.architecture not in INTERLEAVED:
            return b
        rows, rank = b.shape
        return b.reshape(heads, 2, rows // heads // 2, rank).swapaxes(1, 2).reshape(rows, rank)


def random_factors(base, modules, rank, strength, seed):
    """{(layer, module): (A [rank, input], B [output, rank])}; an input of size 1 gives a delta of
    size `strength`."""
    random = np.random.default_rng(seed)
    factors = {}
    for layer in range(base.layers):
        for module in modules:
            outputs, inputs = base.shape(module)
            a = random.standard_normal((rank, inputs), dtype=np.float32) / inputs**0.5
            b = random.standard_normal((outputs, rank), dtype=np.float32) * strength / rank**0.5
            factors[layer, module] = a, b
    return factors


def bf16(array):
    """Rounds to the nearest bfloat16, ties to even, as 16-bit words."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_peft(folder, base, factors, rank, targets):
    header, parts, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for (layer, module), pair in factors.items():
        for letter, array in zip("AB", pair):
            data = bf16(array).tobytes()
            header[f"base_model.model.model.layers.{layer}.{module}.lora_{letter}.weight"] = {
                "dtype": "BF16", "shape": array.shape, "data_offsets": [offset, offset + len(data)]}
            parts.append(data)
            offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "adapter_model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
    config = dict(
        peft_type="LORA", task_type="CAUSAL_LM", base_model_name_or_path=base.name, r=rank, lora_alpha=2 * rank,
        lora_dropout=0.0, bias="none", target_modules=targets, fan_in_fan_out=False, inference_mode=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


def write_gguf(path, base, factors, rank):
    writer = gguf.GGUFWriter(path, base.architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(2 * rank))
    for (layer, module), (a, b) in factors.items():
        name = f"blk.{layer}.{MODULES[module]}.weight"
        writer.add_tensor(f"{name}.lora_a", a.astype(np.float16))
        writer.add_tensor(f"{name}.lora_b", base.gguf_rows(module, b).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=pathlib.Path, required=True, help="a GGUF file, or a config.json of the Hub's")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--rank", default="16", help="one, or several (4,8,64) that the adapters take in turn")
    parser.add_argument("--targets", default="all", help="'all', or names such as q_proj,v_proj")
    parser.add_argument("--strength", type=float, default=0.02, help="size of the delta beside that of the input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-gguf", action="store_true", help="PEFT's form only")
    args = parser.parse_args()

    base = (Base.from_config if args.base.suffix == ".json" else Base.from_gguf)(args.base)
    known = {module.split(".")[1]: module for module in MODULES}
    targets = sorted(known) if args.targets == "all" else args.targets.split(",")
    if unknown := set(targets) - set(known):
        parser.error(f"--targets: unknown {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    modules = [module for module in MODULES if module.split(".")[1] in targets]
    ranks = [int(rank) for rank in args.rank.split(",")]
    for index in range(args.count):
        rank, name = ranks[index % len(ranks)], f"a{index:02d}"
        factors = random_factors(base, modules, rank, args.strength, [args.seed, index])
        write_peft(args.out / name, base, factors, rank, targets)
        if not args.no_gguf:
            write_gguf(args.out / f"{name}.gguf", base, factors, rank)


if __name__ == "__main__":
    main()
