#!/usr/bin/env python3
"""Checks that transformers and PEFT compute the reference logits from `multigraft export`'s files.

    cargo build --release
    python check_export.py ../../target/release/multigraft ../../fixtures/peft/llama ../../fixtures/relatives/qwen2 …

Exports every adapter of each model, as a PEFT folder and merged, loads the export in Python, and
compares its logits with the model's reference.safetensors. Prints the exports that were refused.
The exit status is 1 if a logit differs by more than 1e-4 of the largest logit.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


@torch.no_grad()
def deviation(model, reference, kind):
    worst, prompt = 0.0, 0
    while f"prompt.{prompt}" in reference:
        want = reference[f"{kind}.{prompt}.logits"]
        got = model.eval()(reference[f"prompt.{prompt}"][None]).logits[0]
        worst = max(worst, ((got - want).abs().max() / want.abs().max()).item())
        prompt += 1
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("multigraft", type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path, nargs="+")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    checked, bad = 0, 0
    for folder in args.models:
        reference = load_file(folder / "reference.safetensors")
        for adapter in sorted((folder / "adapters").iterdir()):
            for form in ("peft", "merged"):
                with tempfile.TemporaryDirectory() as place:
                    out = pathlib.Path(place) / form
                    run = subprocess.run([args.multigraft, "export", "--base", folder / "model", "--adapter", adapter,
                                          "--to", form, "--out", out], capture_output=True, text=True)
                    name = f"{folder.name}/{adapter.name} {form}"
                    if run.returncode:
                        print(f"{name}: {run.stderr.strip().splitlines()[-1]}")
                        continue
                    model = base(out) if form == "merged" else PeftModel.from_pretrained(base(folder / "model"), out)
                    worst = deviation(model, reference, adapter.name)
                    checked += 1
                    if worst > TOLERANCE:
                        bad += 1
                        print(f"{name}: differs by {worst:.1e}")
    print(f"{checked} checked, {bad} differ")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
