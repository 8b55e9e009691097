#!/usr/bin/env python3
"""Converts a GGUF model to a folder that transformers, PEFT, vLLM and mistral.rs load.

    python to_transformers.py --model MODEL.gguf --out DIR

The folder holds bf16 weights and the tokenizer.

Needs torch, transformers and gguf.
"""
import argparse
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    source = dict(pretrained_model_name_or_path=str(args.model.resolve().parent), gguf_file=args.model.name)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    # The weights were dequantised while loading, but the model is still marked as quantised, and
    # transformers refuses to save it.
    model.hf_quantizer = None
    vars(model.config).pop("quantization_config", None)
    model.save_pretrained(args.out)
    # Other readers of the configuration expect `rope_theta` where transformers had it before
    # version 5.
    path = args.out / "config.json"
    config = json.loads(path.read_text())
    config.setdefault("rope_theta", config.get("rope_parameters", {}).get("rope_theta", 10000.0))
    path.write_text(json.dumps(config, indent=2) + "\n")
    AutoTokenizer.from_pretrained(**source).save_pretrained(args.out)


if __name__ == "__main__":
    main()
