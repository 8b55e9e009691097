#!/usr/bin/env python3
"""Merges of two adapters of `fixtures/peft/llama` by PEFT's add_weighted_adapter.

    python peft_merges.py ../../fixtures/peft/llama ../../fixtures/peft_merged/llama.safetensors

Writes for each case

    <case>.logits    f32 [n, vocab]   logits of every position of `tokens`
    tokens           i64 [n]

A case is a method with its parameters and weights, see CASES. DARE draws its mask at random, so it
has results only for density 1, where the mask keeps everything. Everything is computed in float32
on the CPU with eager attention.
"""
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

TOKENS = [1, 3, 17, 42, 5, 9, 9, 2, 30, 31, 11, 8, 7, 6, 40, 46, 45, 12]
# Adapters of equal rank. The second one changes some of the modules of the first one. TIES keeps
# the largest numbers, and PyTorch keeps any of several equal ones, so TIES gets adapters that are
# stored in float32 and have no equal numbers.
PAIR = ("all_r8", "layers_1_3")
TABLES = ("qv_r4", "head_embed")
CASES = {
    "cat": (PAIR, [0.7, -0.4], dict(combination_type="cat")),
    "cat_tables": (TABLES, [0.5, 1.5], dict(combination_type="cat")),
    "linear": (PAIR, [0.7, 0.4], dict(combination_type="linear")),
    "linear_negative": (PAIR, [0.7, -0.4], dict(combination_type="linear")),
    "linear_tables": (TABLES, [0.5, 1.5], dict(combination_type="linear")),
    "ties_total": (TABLES, [0.7, 0.4], dict(combination_type="ties", density=0.6, majority_sign_method="total")),
    "ties_frequency": (TABLES, [0.7, 0.4], dict(combination_type="ties", density=0.3, majority_sign_method="frequency")),
    "dare_linear": (PAIR, [0.7, 0.4], dict(combination_type="dare_linear", density=1.0)),
    "dare_ties": (PAIR, [0.7, 0.4], dict(combination_type="dare_ties", density=1.0)),
}


@torch.no_grad()
def main():
    folder, out = map(pathlib.Path, sys.argv[1:])
    tokens = torch.tensor([TOKENS])
    tensors = {"tokens": tokens[0]}
    for case, (names, weights, how) in CASES.items():
        base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="eager")
        model = PeftModel.from_pretrained(base, folder / "adapters" / names[0], adapter_name=names[0])
        model.load_adapter(folder / "adapters" / names[1], adapter_name=names[1])
        model.add_weighted_adapter(list(names), weights, "merged", **how)
        model.set_adapter("merged")
        tensors[f"{case}.logits"] = model.eval()(tokens).logits[0].contiguous()
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out)


if __name__ == "__main__":
    main()
