#!/usr/bin/env python3
"""mistral.rs with one stream: output tokens/s of the base and of one adapter, prefill included.

    python mistral_rs.py --model DIR --adapters DIR
    python mistral_rs.py --model DIR --quantise Q4_0 --adapters DIR

The model's DIR is made by to_transformers.py, the adapters' by make_adapters.py. Mixed load is not
measured, because the Python runner is not re-entrant. Prints one JSON object. Needs mistralrs. (The
script cannot be called mistralrs.py, because it imports the package of that name.)
"""
import argparse
import json
import pathlib
import random
import time

import mistralrs

import serving

WORDS = "time year people way day man thing woman life child world school state family student group".split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--adapters", type=pathlib.Path, required=True)
    parser.add_argument("--quantise", help="for instance Q4_0 or Q8_0, while loading")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    args = parser.parse_args()
    [(name, path)] = serving.adapter_paths(args.adapters, 1, "")
    runner = mistralrs.Runner(
        which=mistralrs.Which.Lora(
            model_id=str(args.model.resolve()), adapters=[mistralrs.LoraAdapter(name, str(path.resolve()))],
            arch=mistralrs.Architecture.Llama),
        in_situ_quant=args.quantise, max_seqs=1, prefix_cache_n=0)

    def rates(adapter):
        found = []
        for seed in range(args.repetitions):
            # Each of these words is one token in nearly every vocabulary.
            prompt = " ".join(random.Random(seed).choices(WORDS, k=args.prompt_tokens))
            request = mistralrs.CompletionRequest(
                prompt=prompt, model="default", max_tokens=args.output_tokens, temperature=0.0, ignore_eos=True,
                adapter=adapter)
            started = time.perf_counter()
            tokens = runner.send_completion_request(request).usage.completion_tokens
            found.append(round(tokens / (time.perf_counter() - started), 2))
        return dict(tokens_per_second=sorted(found)[len(found) // 2], samples=found)

    print(json.dumps(dict(
        model=str(args.model), quantised=args.quantise, base=rates(None), one_adapter=rates(name))))


if __name__ == "__main__":
    main()
