#!/usr/bin/env python3
"""Embeddings of the models and adapters of `fixtures/peft`, computed by transformers and PEFT.

    python peft_embeddings.py ../../fixtures/peft ../../fixtures/embeddings

Writes OUT/<model>.safetensors. For each prompt of the model's `reference.safetensors`, and for
`base` and each adapter, it holds `<adapter>.<p>.mean` and `<adapter>.<p>.last` (f32 [hidden]): the
mean over positions of the hidden states after the last norm, and the hidden state of the last
position.
"""
import copy
import pathlib
import sys

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


@torch.no_grad()
def embed(model, tokens):
    states = model(tokens.unsqueeze(0), output_hidden_states=True).hidden_states[-1][0]
    return {"mean": states.double().mean(0).float(), "last": states[-1].clone()}


def main():
    fixtures, out = map(pathlib.Path, sys.argv[1:])
    out.mkdir(exist_ok=True)
    for folder in sorted(fixtures.iterdir()):
        reference = load_file(folder / "reference.safetensors")
        prompts = []
        while (tokens := reference.get(f"prompt.{len(prompts)}")) is not None:
            prompts.append(tokens)
        base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="eager").eval()
        tensors = {}
        for name in ["base", *sorted(path.name for path in (folder / "adapters").iterdir())]:
            model = copy.deepcopy(base)
            if name != "base":
                model = PeftModel.from_pretrained(model, folder / "adapters" / name).eval()
            for p, tokens in enumerate(prompts):
                for pooling, vector in embed(model, tokens).items():
                    tensors[f"{name}.{p}.{pooling}"] = vector
        save_file(tensors, out / f"{folder.name}.safetensors")
        print(folder.name, len(tensors))


if __name__ == "__main__":
    main()
