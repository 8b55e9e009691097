#!/usr/bin/env python3
"""vLLM on CPU under a load of many adapters.

    python vllm_cpu.py --python VENV/bin/python --model DIR --adapters DIR --count 8

The model's DIR is made by to_transformers.py, in bf16. Prints the URL when the server answers,
which takes a minute or more. A request chooses its adapter by `"model": "a03"`; the base is called
`base`.
"""
import argparse
import os
import pathlib

import serving

KV_CACHE_GIB = 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=pathlib.Path, required=True, help="of an environment with vllm-cpu")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--max-rank", type=int, default=16)
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    serving.add_server_arguments(parser, port=8091)
    args = parser.parse_args()

    command = [
        # The command `vllm` does not work: it looks for the version of the package `vllm`, but this
        # package is called vllm-cpu.
        args.python, "-m", "vllm.entrypoints.openai.api_server",
        "--model", args.model, "--served-model-name", "base", "--dtype", "bfloat16",
        "--max-model-len", args.context, "--max-num-seqs", args.slots, "--no-enable-prefix-caching",
        "--host", args.host, "--port", args.port,
    ]
    if args.eager:
        command.append("--enforce-eager")
    if args.count:
        if args.adapters is None:
            parser.error("--count needs --adapters")
        command += [
            "--enable-lora", "--max-loras", args.count, "--max-cpu-loras", args.count,
            "--max-lora-rank", args.max_rank, "--lora-modules"]
        command += [f"{name}={path.resolve()}" for name, path in serving.adapter_paths(args.adapters, args.count, "")]
    environment = dict(
        os.environ, VLLM_CPU_KVCACHE_SPACE=str(KV_CACHE_GIB), OMP_NUM_THREADS=str(args.threads),
        VLLM_CPU_OMP_THREADS_BIND=f"0-{args.threads - 1}", HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1")
    serving.serve(command + args.extra, args.host, args.port, "/health", args.log, args.wait, environment)


if __name__ == "__main__":
    main()
