#!/usr/bin/env python3
"""Small tokenizers of every kind that the server reads, and the ids that the originals give.

    python make_tokenizers.py ../../fixtures/tokenizer \\
        [--smollm2 FILE] [--qwen2 FILE] [--gemma3 FILE] [--llama-cpp] [--transformers]

Writes

    OUT/corpus.json      the strings of corpus.py
    OUT/<kind>/tokenizer.json   the tokenizer as in a Hugging Face repository
    OUT/<kind>/tokenizer.gguf   the same tokenizer as GGUF metadata (no tensors)
    OUT/<kind>/ids.json         results of the Hugging Face `tokenizers` library:
        encode          ids of each corpus string, no tokens added
        encode_special  the same with the tokens that the post-processor adds (BOS)
        decode          text of `encode`, special tokens kept
        pieces          [{ids, text}]: decoded parts of longer runs, some of which begin or end
                        within a character
    OUT/<model>.json     ids.json for a real GGUF given on the command line

The vocabularies are trained here, on Python's own documentation and on the corpus. The settings
(normalizer, pre-tokenizer, decoder, post-processor, model flags) are those of the original models.
A GGUF names the pre-tokenizer and leaves out the normalizer. With --llama-cpp or --transformers,
these libraries read the GGUFs too, and the differences are printed.
"""
import argparse
import io
import json
import pathlib
import pydoc_data.topics
import sys
import tempfile

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers.tokenization_utils_base import generate_merges

from corpus import CORPUS

VOCAB = 1200
CONTROL, USER_DEFINED = 3, 4
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split_then_bytes(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def bos_template(token, token_id):
    return processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token} $B",
                                         special_tokens=[(token, token_id)])


CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# kind -> normalizer, pre-tokenizer, ignore_merges, special tokens, BOS of the post-processor
BYTE_LEVEL = {
    "smollm": (None, lambda: pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]), False, CHATML, None),
    "gpt-2": (None, lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), False,
              ["<|endoftext|>"], None),
    "qwen2": (normalizers.NFC, lambda: split_then_bytes(QWEN2), False, CHATML, None),
    "llama-bpe": (None, lambda: split_then_bytes(LLAMA3), True,
                  ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
                  "<|begin_of_text|>"),
    "tekken": (None, lambda: split_then_bytes(TEKKEN), True, ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"], "<s>"),
}
# Whole words that no merge produces: they are found only if `ignore_merges` is set.
UNMERGED = ["\u0120tokenizer", "\u0120kilometr", "Hello"]


def training_text():
    lines = [line for text in pydoc_data.topics.topics.values() for line in text.split("\n") if line.strip()]
    return lines[:6000] + [s.replace("\0", "") for s in CORPUS] * 8


def cut_runs(all_ids):
    """Runs from the middle of longer sequences; some cut a character in two."""
    runs = []
    for ids in all_ids:
        if len(ids) > 4:
            runs += [ids[: len(ids) // 2], ids[len(ids) // 3: -1]]
    return runs[::3]


def reference(tok):
    ids = [tok.encode(s, add_special_tokens=False).ids for s in CORPUS]

    def text(run):
        return tok.decode(run, skip_special_tokens=False)
    return dict(encode=ids, encode_special=[tok.encode(s).ids for s in CORPUS], decode=[text(i) for i in ids],
                pieces=[dict(ids=r, text=text(r)) for r in cut_runs(ids)])


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")


def write_gguf(path, model, pre, tokens, types, ids, merges=None, scores=None, add_bos=False, add_space=None,
               arch="llama"):
    w = gguf.GGUFWriter(path, arch)
    w.add_tokenizer_model(model)
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    if scores is not None:
        w.add_token_scores(scores)
    w.add_token_types(types)
    if merges is not None:
        w.add_token_merges(merges)
    for name, value in ids.items():
        getattr(w, f"add_{name}_token_id")(value)
    w.add_add_bos_token(add_bos)
    w.add_add_eos_token(False)
    if add_space is not None:
        w.add_add_space_prefix(add_space)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def byte_level_tokenizer(kind, vocab, merges, special, user_defined=()):
    """The Hugging Face tokenizer of this kind, with the original's settings."""
    normalizer, pre, ignore_merges, _, bos = BYTE_LEVEL[kind]
    tok = Tokenizer(BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    if normalizer:
        tok.normalizer = normalizer()
    tok.pre_tokenizer = pre()
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    tok.add_tokens([AddedToken(t, normalized=False, special=False) for t in user_defined])
    if bos:
        tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                                  bos_template(bos, vocab[bos])])
    return tok


def make_byte_level(out, kind):
    special, bos = BYTE_LEVEL[kind][3:]
    user_defined = ["<tool_call>", "</tool_call>"] if kind == "qwen2" else []
    trained = Tokenizer(BPE())
    trained.pre_tokenizer = BYTE_LEVEL[kind][1]()
    trained.train_from_iterator(training_text(), trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(trained.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].get)
    merges = [tuple(m) for m in model["merges"]]
    words += [w for w in UNMERGED if w not in model["vocab"]]
    # Llama 3 and Qwen number their special tokens last, SmolLM and Mistral first.
    added = special + user_defined
    tokens = words + added if kind in ("qwen2", "llama-bpe", "gpt-2") else added + words
    vocab = {t: i for i, t in enumerate(tokens)}
    tok = byte_level_tokenizer(kind, vocab, merges, special, user_defined)
    saved = json.loads(tok.to_str())
    if kind == "gpt-2":                           # the older way of writing merges
        saved["model"]["merges"] = [" ".join(m) for m in saved["model"]["merges"]]
    write_json(out / "tokenizer.json", saved)
    write_json(out / "ids.json", reference(tok))
    types = [CONTROL if t in special else USER_DEFINED if t in user_defined else 1 for t in tokens]
    eos = {"smollm": "<|im_end|>", "qwen2": "<|im_end|>", "llama-bpe": "<|eot_id|>", "tekken": "</s>"}
    ids = dict(bos=vocab[bos or special[0]], eos=vocab[eos.get(kind, special[0])])
    write_gguf(out / "tokenizer.gguf", "gpt2", kind, tokens, types, ids, merges=[" ".join(m) for m in merges],
               add_bos=bos is not None)


def make_added(out):
    """Added tokens with every flag of tokenizer.json. Without a GGUF, which has no such flags."""
    tok = Tokenizer.from_file(str(out.parent / "gpt-2" / "tokenizer.json"))
    tok.normalizer = normalizers.NFC()
    tok.add_tokens([AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True),
                    AddedToken("<w>", single_word=True), AddedToken("<\u00d1>", normalized=True)])
    write_json(out / "tokenizer.json", json.loads(tok.to_str()))
    write_json(out / "ids.json", reference(tok))


# SentencePiece: kind -> training options. The two llama kinds share one model.
SPM = {
    "llama": dict(add_dummy_prefix=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
                  user_defined_symbols=["[INST]", "[/INST]"]),
    "gemma": dict(add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>",
                  eos_piece="<eos>", bos_piece="<bos>", control_symbols=["<mask>"],
                  user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\u2581" * 2, "\u2581" * 4]),
}


def sentencepiece_tokenizer(kind, vocab, merges, special, user_defined):
    """The Hugging Face tokenizer of this kind, with the original's settings.

    `llama` is legacy=False in transformers: a prefix space only at the very start of the text.
    `llama-legacy` is the form of most published tokenizer.json files: a prefix space after every
    special token, too. GGUF cannot tell the two apart and llama.cpp implements the latter, so only
    `llama-legacy` gets a GGUF here.
    """
    gemma = kind == "gemma"
    tok = Tokenizer(BPE(vocab=vocab, merges=merges, fuse_unk=True, byte_fallback=True, unk_token="<unk>"))
    underscore = normalizers.Replace(" ", "\u2581")
    if gemma:
        tok.normalizer = underscore
        tok.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif kind == "llama-legacy":
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), underscore])
    else:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="first", split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tok.decoder = decoders.Sequence(steps if gemma else steps + [decoders.Strip(content=" ", left=1)])
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    tok.add_tokens([AddedToken(t, normalized=False, special=False) for t in user_defined])
    bos = "<bos>" if gemma else "<s>"
    tok.post_processor = bos_template(bos, vocab[bos])
    return tok


def train_sentencepiece(options):
    model = io.BytesIO()
    text = [piece for line in training_text() for piece in line.split("\n") if piece.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, model_type="bpe", vocab_size=VOCAB, byte_fallback=True,
        split_digits=True, character_coverage=0.9995, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2, **options)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def make_sentencepiece(out, name):
    sp = train_sentencepiece(SPM[name])
    size = sp.vocab_size()
    tokens = [sp.id_to_piece(i) for i in range(size)]
    user_defined = SPM[name]["user_defined_symbols"]
    special = [t for i, t in enumerate(tokens) if sp.is_control(i) or sp.is_unknown(i)]
    vocab = {t: i for i, t in enumerate(tokens)}
    merges = generate_merges(vocab)
    types = [2 if sp.is_unknown(i) else CONTROL if sp.is_control(i) else 6 if sp.is_byte(i)
             else USER_DEFINED if t in user_defined else 1 for i, t in enumerate(tokens)]
    # llama.cpp's converter writes a space in a user-defined token as a space.
    written = [t.replace("\u2581", " ") if y == USER_DEFINED else t for t, y in zip(tokens, types)]
    ids = dict(bos=sp.bos_id(), eos=sp.eos_id(), unk=sp.unk_id())
    for kind in (["llama", "llama-legacy"] if name == "llama" else [name]):
        d = out / f"spm-{kind}"
        d.mkdir(parents=True, exist_ok=True)
        tok = sentencepiece_tokenizer(kind, vocab, merges, special, user_defined)
        write_json(d / "tokenizer.json", json.loads(tok.to_str()))
        ref = reference(tok)
        write_json(d / "ids.json", ref)
        if kind != "llama":
            write_gguf(d / "tokenizer.gguf", "llama", "default", written, types, ids, add_bos=True,
                       scores=[sp.get_score(i) for i in range(size)], add_space=name == "llama",
                       arch="gemma2" if name == "gemma" else "llama")
        report(f"spm-{kind} against sentencepiece", ref["encode"], [sp.encode(s) for s in CORPUS])


def from_real_gguf(path, kind):
    """The original tokenizer of a published model, rebuilt from its GGUF's vocabulary."""
    fields = gguf.GGUFReader(path).fields
    tokens, types, merges = (fields[f"tokenizer.ggml.{k}"].contents() if f"tokenizer.ggml.{k}" in fields else None
                             for k in ("tokens", "token_type", "merges"))
    special = [t for t, y in zip(tokens, types) if y == CONTROL]
    if kind == "gemma":
        tokens = [t.replace(" ", "\u2581") if y == USER_DEFINED else t for t, y in zip(tokens, types)]
        user_defined = [t for t, y in zip(tokens, types) if y == USER_DEFINED]
        vocab = {t: i for i, t in enumerate(tokens)}
        return sentencepiece_tokenizer(kind, vocab, generate_merges(vocab), special, user_defined)
    user_defined = [t for t, y in zip(tokens, types) if y == USER_DEFINED]
    return byte_level_tokenizer(kind, {t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges],
                                special, user_defined)


def report(what, ours, theirs):
    differ = [i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b]
    print(f"{what}: {len(ours) - len(differ)} of {len(ours)} equal", [CORPUS[i][:30] for i in differ], file=sys.stderr)


def compare_llama_cpp(path, ref):
    from llama_cpp import Llama
    m = Llama(str(path), vocab_only=True, verbose=False)
    report(f"{path} llama.cpp", ref["encode"], [m.tokenize(s.encode(), add_bos=False, special=True) for s in CORPUS])


def compare_transformers(path, ref):
    from transformers import AutoTokenizer
    with tempfile.TemporaryDirectory() as d:      # without tokenizer.json, which it would prefer
        (pathlib.Path(d) / "m.gguf").symlink_to(path.resolve())
        tok = AutoTokenizer.from_pretrained(d, gguf_file="m.gguf")
    report(f"{path} transformers", ref["encode"], [tok.encode(s, add_special_tokens=False) for s in CORPUS])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=pathlib.Path)
    for name in ("smollm2", "qwen2", "gemma3"):
        ap.add_argument(f"--{name}", type=pathlib.Path, metavar="FILE")
    ap.add_argument("--llama-cpp", action="store_true", help="compare with llama-cpp-python")
    ap.add_argument("--transformers", action="store_true", help="compare with transformers' reading of the GGUF")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    write_json(a.out / "corpus.json", CORPUS)
    checks = []
    for kind in BYTE_LEVEL:
        (a.out / kind).mkdir(exist_ok=True)
        make_byte_level(a.out / kind, kind)
        checks.append((a.out / kind / "tokenizer.gguf", a.out / kind / "ids.json"))
    (a.out / "added").mkdir(exist_ok=True)
    make_added(a.out / "added")
    for name in SPM:
        make_sentencepiece(a.out, name)
    checks += [(a.out / f"spm-{k}" / "tokenizer.gguf", a.out / f"spm-{k}" / "ids.json")
               for k in ("llama-legacy", "gemma")]
    for name, kind in (("smollm2", "smollm"), ("qwen2", "qwen2"), ("gemma3", "gemma")):
        path = getattr(a, name)
        if path:
            write_json(a.out / f"{name}.json", reference(from_real_gguf(path, kind)))
            checks.append((path, a.out / f"{name}.json"))
    for path, ids in checks:
        ref = json.loads(ids.read_text())
        if a.transformers:
            compare_transformers(path, ref)
        if a.llama_cpp:
            compare_llama_cpp(path, ref)


if __name__ == "__main__":
    main()
