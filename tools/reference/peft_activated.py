#!/usr/bin/env python3
"""An activated LoRA (arXiv 2504.12397) for the model of `fixtures/peft/llama`, and PEFT's results.

    python peft_activated.py ../../fixtures/peft/llama ../../fixtures/peft_activated

Writes OUT/adapters/activated/ as PEFT saves it, and OUT/reference.safetensors, which holds for each
prompt `prompt.<p>` (i64 [n], token ids), `<p>.logits` (f32 [n, vocab]) and `<p>.greedy` (i64 [8]).
The prompts have the invocation tokens once, twice (the last occurrence counts), and at the start.
"""
import json
import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

INVOCATION = [7, 8]
PROMPTS = [
    [1, 3, 17, 42, 5, 9, 9, 2, 30, 31, 11, 4, 40, 46, 45, 12, 3, 3, 17, 7, 8, 20, 21],
    [1, 7, 8, 42, 5, 9, 9, 7, 8, 31, 7, 6],
    [7, 8, 3, 17, 42],
]


@torch.no_grad()
def main():
    folder, out = map(pathlib.Path, sys.argv[1:])
    base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="eager")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=targets, alora_invocation_tokens=INVOCATION)
    model = get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    model.save_pretrained(out / "adapters" / "activated")
    (out / "adapters" / "activated" / "README.md").unlink(missing_ok=True)
    path = out / "adapters" / "activated" / "adapter_config.json"
    saved = json.loads(path.read_text())
    saved["target_modules"].sort()
    saved["base_model_name_or_path"] = None
    path.write_text(json.dumps(saved, indent=2) + "\n")
    tensors = {}
    for p, prompt in enumerate(PROMPTS):
        tokens = torch.tensor([prompt])
        tensors[f"prompt.{p}"] = tokens[0]
        tensors[f"{p}.logits"] = model(tokens).logits[0].contiguous()
        with model.disable_adapter():
            plain = model(tokens).logits[0]
        start = max(i for i in range(len(prompt)) if prompt[i:i + 2] == INVOCATION)
        change = (plain - tensors[f"{p}.logits"]).abs().amax(-1)
        assert (change[:start] == 0).all() and (change[start:] > 1e-3).all()
        # Offsets count from the end of PEFT's input, so they grow with every generated token.
        for _ in range(8):
            offsets = [tokens.shape[1] - start]
            tokens = torch.cat([tokens, model(tokens, alora_offsets=offsets).logits[:, -1:].argmax(-1)], 1)
        tensors[f"{p}.greedy"] = tokens[0, len(prompt):].contiguous()
    save_file(tensors, out / "reference.safetensors")


if __name__ == "__main__":
    main()
