#!/usr/bin/env python3
"""llama.cpp's server under a load of many adapters.

    python llama_server.py --binary llama-server --model MODEL.gguf --adapters DIR --count 8

Prints the URL when the server answers. A request chooses its adapter by
`"lora": [{"id": 3, "scale": 1.0}]` in the body. Ids are positions in the order of loading: aNN has
the id NN. The base needs a list too, `[{"id": 0, "scale": 0.0}]`: some versions leave all scales at
1 in spite of --lora-init-without-apply, and then a request without a list runs with all adapters at
once. `multigraft bench serve --dialect llama-cpp` sends such lists.

The prompt cache in main memory is off, because the prompts of the load have no common prefixes and
saving them only costs time.
"""
import argparse
import pathlib

import serving


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, required=True, help="llama-server")
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--unified", action="store_true", help="one KV cache for all slots, not a piece for each")
    serving.add_server_arguments(parser, port=8090)
    args = parser.parse_args()

    command = [
        args.binary, "--model", args.model, "--alias", "base",
        "--threads", args.threads, "--threads-batch", args.threads,
        "--parallel", args.slots, "--ctx-size", args.slots * args.context,
        "--kv-unified" if args.unified else "--no-kv-unified",
        "--cache-ram", 0, "--no-webui", "--host", args.host, "--port", args.port,
    ]
    if args.count:
        if args.adapters is None:
            parser.error("--count needs --adapters")
        for _, path in serving.adapter_paths(args.adapters, args.count, ".gguf"):
            command += ["--lora", path]
        command.append("--lora-init-without-apply")
    serving.serve(command + args.extra, args.host, args.port, "/health", args.log, args.wait)


if __name__ == "__main__":
    main()
