#!/usr/bin/env python3
"""The tiny models of fixtures/peft as GGUF files, made by llama.cpp's own converter.

    pip download --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36   (and unpack it)
    python gguf_files.py llama_cpp_python-0.3.36/vendor/llama.cpp ../../fixtures/peft ../../fixtures/gguf

They test that names, row order, norms and rotary embeddings of each architecture are read from GGUF
as llama.cpp writes them. The models have no tokenizer, so the files have none either.
"""
import argparse
import json
import pathlib
import shutil
import sys
import tempfile


def convert(folder, out, converter, base, gguf):
    """Converts a copy with a tokenizer.json, whose tokens the class of Gemma 3 counts."""
    with tempfile.TemporaryDirectory() as copy:
        model = pathlib.Path(copy) / "model"
        shutil.copytree(folder / "model", model)
        vocab = json.loads((model / "config.json").read_text())["vocab_size"]
        names = {f"t{i}": i for i in range(vocab)}
        (model / "tokenizer.json").write_text(json.dumps({"model": {"vocab": names}, "added_tokens": []}))
        architecture = converter.get_model_architecture(
            base.ModelBase.load_hparams(model, False), base.ModelType.TEXT)
        known = converter.get_model_class(architecture)

        class WithoutVocabulary(known):
            model_arch = known.model_arch

            def set_vocab(self):
                pass

        WithoutVocabulary(model, gguf.LlamaFileType.ALL_F32, out / f"{folder.name}.gguf", eager=True).write()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=pathlib.Path, help="llama.cpp's source folder")
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    sys.path[:0] = [str(args.llama_cpp), str(args.llama_cpp / "gguf-py")]
    import convert_hf_to_gguf as converter
    import gguf
    from conversion import base

    args.out.mkdir(exist_ok=True)
    for folder in sorted(args.models.iterdir()):
        convert(folder, args.out, converter, base, gguf)


if __name__ == "__main__":
    main()
