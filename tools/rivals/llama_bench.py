#!/usr/bin/env python3
"""Prefill and decode of llama.cpp without server or adapters: llama-bench, llama-batched-bench.

    python llama_bench.py --binary llama-bench --model MODEL.gguf
    python llama_bench.py --binary llama-bench --model MODEL.gguf --prompt 0 --depth 8000
    python llama_bench.py --binary llama-bench --model MODEL.gguf --batched llama-batched-bench --rows 1,8,16,32

Prints one JSON object: tokens/s of each kind of run, and the standard deviation if llama-bench has
it.
"""
import argparse
import json
import pathlib
import subprocess


def output_of(command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def single(args):
    rows = json.loads(output_of([
        args.binary, "--model", args.model, "--threads", args.threads, "--n-prompt", args.prompt,
        "--n-gen", args.generate, "--n-depth", args.depth, "--repetitions", args.repetitions, "--output", "json"]))
    result = {}
    for row in rows:
        kind = "prefill" if row["n_prompt"] else "decode"
        result[kind] = dict(
            tokens=row["n_prompt"] or row["n_gen"], depth=row["n_depth"],
            tokens_per_second=round(row["avg_ts"], 1), deviation=round(row["stddev_ts"], 1),
            samples=[round(sample, 1) for sample in row["samples_ts"]])
    return result


def batched(args):
    """Every row has its own prompt of 128 tokens, and generates 64 tokens."""
    prompt, generate = 128, 64
    counts = [int(rows) for rows in args.rows.split(",")]
    lines = output_of([
        args.batched, "--model", args.model, "--threads", args.threads,
        "--ctx-size", max(counts) * (prompt + generate), "-npp", prompt, "-ntg", generate,
        "-npl", args.rows, "--output-format", "jsonl"]).splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    return [dict(
        rows=row["pl"], decode_tokens_per_second=round(row["speed_tg"], 1),
        output_tokens_per_second=round(row["pl"] * row["tg"] / row["t"], 1)) for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="llama-bench")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of prefill; 0: no such run")
    parser.add_argument("--generate", type=int, default=64, help="tokens of decode; 0: no such run")
    parser.add_argument("--depth", type=int, default=0, help="tokens that are in the context before")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--batched", type=pathlib.Path, help="llama-batched-bench, to decode several rows at once")
    parser.add_argument("--rows", default="1,8,16,32")
    args = parser.parse_args()
    result = dict(model=args.model.name, threads=args.threads, **single(args))
    if args.batched:
        result["batched"] = batched(args)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
