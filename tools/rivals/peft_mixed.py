#!/usr/bin/env python3
"""transformers with PEFT: eight requests for eight adapters, in one batch and one after the other.

    python peft_mixed.py --model DIR --adapters DIR --count 8

The model's DIR is made by to_transformers.py, the adapters' by make_adapters.py. Measures output
tokens per second over the whole run, prefill included, in three ways. All are greedy, in bf16, with
prompts of random tokens:

    base    one batch of the base model
    mixed   one batch in which every row has its own adapter (`adapter_names`)
    switch  one request at a time, with `set_adapter` before each

Prints one JSON object. Needs torch, transformers and peft.
"""
import argparse
import json
import pathlib
import time

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import serving


def generate(model, prompts, args, **named):
    """Generates greedily exactly --output-tokens for every row of `prompts` [rows, tokens]."""
    return model.generate(
        input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=False,
        min_new_tokens=args.output_tokens, max_new_tokens=args.output_tokens, pad_token_id=0, **named)


def measure(run, rows, args):
    """Output tokens per second of each repetition of `run`, which answers `rows` requests."""
    rates = []
    for _ in range(args.repetitions):
        started = time.perf_counter()
        run()
        rates.append(round(rows * args.output_tokens / (time.perf_counter() - started), 2))
    return dict(requests=rows, tokens_per_second=sorted(rates)[len(rates) // 2], samples=rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--adapters", type=pathlib.Path, required=True)
    parser.add_argument("--count", type=int, default=8, help="adapters, and rows of the batch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--ways", default="base,mixed,switch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.bfloat16)
    adapters = serving.adapter_paths(args.adapters, args.count, "")
    (first, path), *others = adapters
    model = PeftModel.from_pretrained(base, path, adapter_name=first).eval()
    for name, path in others:
        model.load_adapter(path, adapter_name=name)
    names = [name for name, _ in adapters]
    prompts = torch.randint(100, base.config.vocab_size, (args.count, args.prompt_tokens))

    def alone():
        with model.disable_adapter():
            generate(model, prompts, args)

    def mixed():
        generate(model, prompts, args, adapter_names=names)

    def switch():
        for name, prompt in zip(names, prompts):
            model.set_adapter(name)
            generate(model, prompt[None], args)

    ways = dict(base=alone, mixed=mixed, switch=switch)
    with torch.inference_mode():
        result = {way: measure(ways[way], args.count, args) for way in args.ways.split(",")}
    print(json.dumps(dict(model=str(args.model), adapters=args.count, threads=args.threads, **result)))


if __name__ == "__main__":
    main()
