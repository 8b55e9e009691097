#!/usr/bin/env python3
"""Adapters of fixtures/peft as GGUF files, made by llama.cpp's own convert_lora_to_gguf.py.

    pip download --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36   (and unpack it)
    python gguf_adapters.py llama_cpp_python-0.3.36/vendor/llama.cpp ../../fixtures/peft ../../fixtures/gguf_adapters

Writes OUT/<architecture>/<kind>.<storage type>.gguf: `qv_r4` for every architecture, because names
and the order of rows differ between architectures, and for two architectures also every matrix and
other storage types. `all_r8` is stored in bfloat16 already, so bf16 loses nothing.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

MORE = {
    "llama": [("all_r8", "bf16"), ("all_r48", "q8_0"), ("qv_r4", "f16"), ("head_embed", "f32")],
    "qwen2": [("all_r8", "bf16"), ("qv_r4", "f16")],
}


def convert(script, architecture, kind, storage, out):
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as copy:
        # The converter may count the tokens of a tokenizer.json, which these models lack.
        model = pathlib.Path(copy) / "model"
        shutil.copytree(architecture / "model", model)
        vocab = json.loads((model / "config.json").read_text())["vocab_size"]
        names = {f"t{i}": i for i in range(vocab)}
        (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": names}, "added_tokens": []}))
        subprocess.run([sys.executable, script, "--base", model, "--outtype", storage, "--outfile", out,
                        architecture / "adapters" / kind], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=pathlib.Path, help="llama.cpp's source folder")
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    for architecture in sorted(args.models.iterdir()):
        for kind, storage in [("qv_r4", "f32"), *MORE.get(architecture.name, [])]:
            out = args.out / architecture.name / f"{kind}.{storage}.gguf"
            convert(args.llama_cpp / "convert_lora_to_gguf.py", architecture, kind, storage, out)


if __name__ == "__main__":
    main()
