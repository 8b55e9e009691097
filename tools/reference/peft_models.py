#!/usr/bin/env python3
"""Tiny random models, PEFT adapters of every kind for them, and PEFT's results.

    python peft_models.py ../../fixtures/peft                    # 13 architectures x 12 kinds
    python peft_models.py ../../fixtures/peft_extra --set extra  # cases that those leave out
    python peft_models.py ../../fixtures/relatives --set relatives  # adapter types other than LoRA

For every model it writes

    OUT/<name>/model/            config.json, model.safetensors (or shards and an index)
    OUT/<name>/adapters/<kind>/  adapter_config.json, adapter_model.safetensors, as PEFT saves them
    OUT/<name>/reference.safetensors
        prompt.<p>                  i64 [n]            token ids
        <adapter>.<p>.logits        f32 [n, vocab]     logits of every prompt position
        <adapter>.<p>.greedy        i64 [16]           greedy continuation
    OUT/<name>/kinds.json        the config of each adapter (a LoraConfig if it has no peft_type),
                                 or why PEFT refused it

<adapter> is `base` or the kind. Everything is computed in float32 on the CPU with eager attention,
from the stored weights (those that are stored in 16 bits are rounded first).

A reference is useful only if a wrong implementation gives other results. Therefore weights are
scaled to make attention peaked and logits spread, and every trained tensor is moved away from its
initial identity. A random draw is discarded if the best two logits of a greedy step, or the last
expert that a router chose and the next one, are too close in float32; if float32 noise is over 1e-5
of the largest logit; or if the adapter hardly changes the logits. What was saved is loaded again
with PEFT and must give the same logits.
"""
import argparse
import copy
import json
import pathlib
import sys
import warnings

import torch
from peft import PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

GREEDY = 16
# Stored in bfloat16, to keep the set small.
SMALL = ("all_r8", "all_r48", "rslora_r16", "patterns", "layers_1_3", "regex", "dora", "lora_bias")
TOKENS = [3, 17, 42]          # rows trained by `trainable_token_indices`; the prompts contain them
ATTN = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]

COMMON = dict(vocab_size=47, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
              num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
              pad_token_id=0, bos_token_id=1, eos_token_id=2)

# With 8 rotary dimensions, these values reach all three bands of llama3's frequency rule.
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
                   high_freq_factor=4.0, original_max_position_embeddings=64)

# Softcaps are far lower than real ones, and gemma3 alternates its layers, so that the results of a
# tiny model depend on them.
ARCHS = {
    "llama": dict(model_type="llama"),
    "llama3": dict(model_type="llama", rope_parameters=LLAMA3_ROPE),
    "mistral": dict(model_type="mistral", sliding_window=8, head_dim=16),
    "qwen2": dict(model_type="qwen2", tie_word_embeddings=True),
    "qwen3": dict(model_type="qwen3", head_dim=16),
    "gemma2": dict(model_type="gemma2", head_dim=16, sliding_window=8, query_pre_attn_scalar=24,
                   attn_logit_softcapping=4.0, final_logit_softcapping=10.0),
    "gemma3": dict(model_type="gemma3_text", head_dim=16, sliding_window=8, query_pre_attn_scalar=24,
                   sliding_window_pattern=2),
    "phi3": dict(model_type="phi3"),
    "smollm3": dict(model_type="smollm3", no_rope_layer_interval=2),
    "granite": dict(model_type="granite", embedding_multiplier=2.0, residual_multiplier=0.5,
                    attention_multiplier=0.25, logits_scaling=3.0),
    "olmo2": dict(model_type="olmo2"),
    "mixtral": dict(model_type="mixtral", intermediate_size=32, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": dict(model_type="qwen3_moe", head_dim=16, num_experts=4, num_experts_per_tok=2,
                      moe_intermediate_size=16, norm_topk_prob=True),
}


def main_kinds(arch, full):
    """The 12 adapters of every architecture.

    With `full`, `all_r48` targets every matrix, which is half of all bytes.
    """
    attn, mlp = (["qkv_proj", "o_proj"], ["gate_up_proj", "down_proj"]) if arch == "phi3" else (ATTN, MLP)
    if arch in ("mixtral", "qwen3_moe"):
        mlp = []                                  # PEFT cannot target experts by name
    q, both = attn[0], attn + mlp
    return {
        "qv_r4": dict(r=4, lora_alpha=8, target_modules=[q, attn[-1]]),
        "all_r8": dict(r=8, lora_alpha=16, target_modules=both),
        "all_r48": dict(r=48, lora_alpha=12, target_modules=both if full else [q, both[-1]]),
        "rslora_r16": dict(r=16, lora_alpha=8, use_rslora=True, target_modules=both),
        "patterns": dict(r=4, lora_alpha=8, target_modules=both,
                         rank_pattern={f"layers.1.*{q}": 12, "o_proj": 2},
                         alpha_pattern={f"layers.2.*{q}": 3, "o_proj": 5}),
        "layers_1_3": dict(r=8, lora_alpha=16, target_modules=attn, layers_to_transform=[1, 3],
                           layers_pattern="layers"),
        "regex": dict(r=4, lora_alpha=4, target_modules=rf".*layers\.[02]\..*({'|'.join(both)})"),
        "dora": dict(r=4, lora_alpha=8, use_dora=True, target_modules=both),
        "lora_bias": dict(r=4, lora_alpha=8, lora_bias=True, target_modules=attn),
        "head_embed": dict(r=4, lora_alpha=8, target_modules=[q, "embed_tokens", "lm_head"]),
        "save_head": dict(r=4, lora_alpha=8, target_modules=[q], modules_to_save=["lm_head"]),
        "tokens": dict(r=4, lora_alpha=8, target_modules=[q], trainable_token_indices=TOKENS),
    }


R4 = dict(r=4, lora_alpha=8)
ALL_R4 = dict(**R4, target_modules=ATTN + MLP)
QO = dict(qo_r4=dict(**R4, target_modules=["q_proj", "o_proj"]))
TIED = dict(**R4, target_modules=["q_proj"])
# name -> (config, adapters, how to store): `dtype`, `shard` (max shard size), `old_config`
# (config.json in the style of transformers 4: rope_theta, rope_scaling, torch_dtype).
EXTRA = {
    "yarn": (dict(rope_parameters=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0,
                                       original_max_position_embeddings=64)), QO, {}),
    "linear": (dict(rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=4.0)), QO, {}),
    "linear_old_config": (dict(rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0)), QO,
                          dict(old_config=True)),
    "llama3_old_config": (dict(rope_parameters=dict(LLAMA3_ROPE, rope_theta=5000.0)), QO, dict(old_config=True)),
    "bias": (dict(attention_bias=True, mlp_bias=True), {
        "all_r4": ALL_R4,
        "bias_lora_only": dict(**R4, target_modules=["q_proj", "v_proj", "down_proj"], bias="lora_only"),
        "bias_all": dict(**R4, target_modules=["q_proj", "v_proj", "down_proj"], bias="all"),
        "dora": dict(**ALL_R4, use_dora=True),
        "dora_bias_all": dict(**ALL_R4, use_dora=True, bias="all"),
        "lora_bias": dict(**ALL_R4, lora_bias=True),
    }, {}),
    "tied": (dict(tie_word_embeddings=True), {
        "save_embed": dict(**TIED, modules_to_save=["embed_tokens"]),
        "save_embed_tied": dict(**TIED, modules_to_save=["embed_tokens"], ensure_weight_tying=True),
        "save_head": dict(**TIED, modules_to_save=["lm_head"]),
        "save_both": dict(**TIED, modules_to_save=["embed_tokens", "lm_head"]),
        "tokens": dict(**TIED, trainable_token_indices=TOKENS),
        "tokens_embed": dict(**TIED, trainable_token_indices={"embed_tokens": TOKENS}),
        "tokens_unsorted": dict(**TIED, trainable_token_indices=TOKENS[2:] + TOKENS[:2]),
        "lora_head": dict(**R4, target_modules=["q_proj", "lm_head"]),
        "lora_embed": dict(**R4, target_modules=["q_proj", "embed_tokens"]),
        "lora_embed_tied": dict(**R4, target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True),
        "dora_rslora": dict(**ALL_R4, use_dora=True, use_rslora=True),
        "dora_head": dict(**R4, target_modules=["q_proj", "lm_head"], use_dora=True),
        "dora_embed": dict(**R4, target_modules=["q_proj", "embed_tokens"], use_dora=True),
        "all_linear": dict(**R4, target_modules="all-linear"),
        "exclude": dict(**ALL_R4, exclude_modules=["up_proj", "layers.0.self_attn.q_proj"]),
        "exclude_regex": dict(**R4, target_modules="all-linear", exclude_modules=r".*layers\.1\..*_proj"),
    }, {}),
    "qwen2_window": (dict(model_type="qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1), QO, {}),
    "gemma3_linear": (dict(model_type="gemma3_text", head_dim=16, sliding_window=8, sliding_window_pattern=2,
                           query_pre_attn_scalar=16, rope_parameters=dict(
                               full_attention=dict(rope_type="linear", rope_theta=1e6, factor=8.0),
                               sliding_attention=dict(rope_type="default", rope_theta=1e4))), QO, {}),
    "phi3_longrope": (dict(model_type="phi3", num_attention_heads=2, num_key_value_heads=1,
                           original_max_position_embeddings=64, rope_parameters=dict(
                               rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                               original_max_position_embeddings=64, short_factor=[1.0, 1.1, 1.3, 1.6, 2.0, 2.5],
                               long_factor=[1.0, 1.5, 2.5, 4.0, 8.0, 12.0])),
                      dict(qo_r4=dict(**R4, target_modules=["qkv_proj", "o_proj"])), {}),
    "sharded": (dict(), QO, dict(shard="24KB")),
    "f16": (dict(), dict(all_r4=ALL_R4, dora=dict(**ALL_R4, use_dora=True)), dict(dtype=torch.float16)),
    "bf16": (dict(), dict(all_r4=ALL_R4, dora=dict(**ALL_R4, use_dora=True)), dict(dtype=torch.bfloat16)),
}


def relatives(attn, mlp, ia3):
    """Adapter types other than LoRA; IA³ scales the outputs of the matrices `ia3`."""
    both, down = attn + mlp, mlp[-1]
    return {
        "adalora": dict(peft_type="ADALORA", init_r=4, lora_alpha=8, total_step=10, target_modules=both),
        "adalora_no_alpha": dict(peft_type="ADALORA", init_r=4, lora_alpha=0, total_step=10, target_modules=attn),
        "loha": dict(peft_type="LOHA", r=4, alpha=2, target_modules=both),
        "loha_patterns": dict(peft_type="LOHA", r=2, alpha=3, target_modules=both, rank_pattern={attn[0]: 3},
                              alpha_pattern={down: 5}),
        "lokr": dict(peft_type="LOKR", r=2, alpha=4, target_modules=both),
        "lokr_both": dict(peft_type="LOKR", r=1, alpha=2, decompose_both=True, target_modules=both),
        "lokr_factor": dict(peft_type="LOKR", r=3, alpha=4, decompose_factor=2, target_modules=[attn[0], down]),
        "vera": dict(peft_type="VERA", r=6, target_modules=both),
        "vera_save_head": dict(peft_type="VERA", r=6, target_modules=[attn[0]], modules_to_save=["lm_head"]),
        "ia3": dict(peft_type="IA3", target_modules=[*ia3, down], feedforward_modules=[down]),
        "ia3_all": dict(peft_type="IA3", target_modules=both, feedforward_modules=[down]),
        "ia3_down": dict(peft_type="IA3", target_modules=[down], feedforward_modules=[down]),
        "ia3_outputs": dict(peft_type="IA3", target_modules=both, feedforward_modules=[]),
    }


RELATIVES = {
    "llama": (dict(), relatives(ATTN, MLP, ["k_proj", "v_proj"]), {}),
    "qwen2": (dict(model_type="qwen2", tie_word_embeddings=True), relatives(ATTN, MLP, ["k_proj", "v_proj"]), {}),
    "phi3": (dict(model_type="phi3"), relatives(["qkv_proj", "o_proj"], ["gate_up_proj", "down_proj"], ["qkv_proj"]), {}),
}


def new_config(conf):
    conf = copy.deepcopy(conf)
    return PEFT_TYPE_TO_CONFIG_MAPPING[conf.pop("peft_type", "LORA")](task_type="CAUSAL_LM", **conf)


def new_base(cfg, g):
    """A model whose attention is peaked, whose logits are spread and whose norms are not 1."""
    base = AutoModelForCausalLM.from_config(cfg).float().eval()
    for name, p in base.named_parameters():
        noise = torch.randn(p.shape, generator=g)
        if p.dim() == 1:
            p.data = p.data + 0.25 * noise
        elif "embed_tokens" in name:
            p.data = 0.3 * noise
        else:
            p.data = 1.6 * noise / p.shape[-1] ** 0.5
    return base


def randomise(model, g):
    """Move all trained tensors away from their initial values, with which they change nothing.

    This is done in place, because with `ensure_weight_tying` some of the tensors share storage.
    """
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=g)
        if "lora_B" in name or "lora_embedding_B" in name:
            p.data.copy_(0.2 * noise)
        elif "lora_A" in name or "lora_embedding_A" in name:
            p.data.copy_(0.3 * noise)
        elif "lora_E" in name or "vera_lambda" in name:
            p.data.copy_(noise)
        elif "hada_" in name or "lokr_" in name:
            p.data.copy_(0.4 * noise)
        elif "magnitude" in name:
            p.data.mul_((1 + 0.2 * noise).abs())
        elif p.requires_grad:                     # modules_to_save, token rows, biases
            p.data.add_(0.2 * noise)


def round_to(model, dtype):
    for p in model.parameters():
        p.data.copy_(p.data.to(dtype))


class TooClose(Exception):
    """A random draw whose result float32 noise could change."""


@torch.no_grad()
def run(model, prompts, tag):
    """Logits and greedy continuations; raises TooClose if float32 noise could change them."""
    gaps = []

    def router_gap(module, _, out):
        p = out[0].float().softmax(-1).sort(-1, descending=True).values
        gaps.append((p[..., module.top_k - 1] - p[..., module.top_k]).min().item())

    hooks = [m.register_forward_hook(router_gap) for m in model.modules() if type(m).__name__.endswith("TopKRouter")]
    out = {}
    for i, ids in enumerate(prompts):
        out[f"{tag}.{i}.logits"] = model(ids[None]).logits[0].float().contiguous()
        seq = ids
        for _ in range(GREEDY):
            logits = model(seq[None]).logits[0, -1]
            best = logits.topk(2).values
            if best[0] - best[1] < 2e-3 * logits.abs().max():
                raise TooClose(f"{tag}.{i}: best two logits")
            seq = torch.cat([seq, logits.argmax()[None]])
        out[f"{tag}.{i}.greedy"] = seq[len(ids):].contiguous()
    for h in hooks:
        h.remove()
    if gaps and min(gaps) < 1e-4:
        raise TooClose(f"{tag}: router")
    return out


@torch.no_grad()
def float32_noise(model, prompts, ref, tag):
    """The largest deviation of the logits from float64, relative to the largest logit.

    The model is unchanged afterwards.
    """
    model.double()
    worst = 0.0
    for i, ids in enumerate(prompts):
        want = ref[f"{tag}.{i}.logits"]
        worst = max(worst, ((model(ids[None]).logits[0] - want).abs().max() / want.abs().max()).item())
    model.float()
    return worst


def draw(make, seeds, prompts, tag, base_ref=None):
    """(model, results) of the first seed that gives a fair test."""
    for seed in seeds:
        model = make(torch.Generator().manual_seed(seed)).eval()
        try:
            ref = run(model, prompts, tag)
        except TooClose:
            continue
        if float32_noise(model, prompts, ref, tag) > 1e-5:
            continue
        if base_ref is None:
            return model, ref
        moved = [(ref[f"{tag}.{i}.logits"] - base_ref[f"base.{i}.logits"]).abs().max()
                 / base_ref[f"base.{i}.logits"].abs().max() for i in range(1, len(prompts))]
        if min(moved) > 0.02:
            return model, ref
    raise SystemExit(f"{tag}: no seed gives a fair test")


def make_prompts(lengths, vocab, g):
    prompts = [torch.randint(3, vocab, (n,), generator=g) for n in lengths]
    for p in prompts:                             # the prompts contain the trained tokens
        for k, t in enumerate(TOKENS):
            if len(p) > 2 * k + 1:
                p[2 * k + 1] = t
    prompts[0][0] = TOKENS[1]
    return prompts


def old_style(path):
    """Rewrite config.json in the style of transformers 4."""
    c = json.loads(path.read_text())
    rope = c.pop("rope_parameters")
    c["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] == "linear":             # the oldest style: `type`
        rope["type"] = rope.pop("rope_type")
    c["rope_scaling"] = rope
    c["torch_dtype"] = c.pop("dtype")
    path.write_text(json.dumps(c, indent=2) + "\n")


def save_adapter(model, d, dtype):
    model.save_pretrained(d)
    (d / "README.md").unlink(missing_ok=True)
    path = d / "adapter_config.json"
    c = json.loads(path.read_text())
    for key in ("target_modules", "exclude_modules"):
        if isinstance(c.get(key), list):          # a set, written in random order
            c[key].sort()
    path.write_text(json.dumps(c, indent=2) + "\n")
    if dtype != torch.float32:
        path = d / "adapter_model.safetensors"
        tensors = {k: v.to(dtype) for k, v in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})


@torch.no_grad()
def check_saved(d, kinds, prompts, ref):
    """Check that PEFT computes the reference again from the saved files."""
    def loaded():
        return AutoModelForCausalLM.from_pretrained(d / "model", dtype=torch.float32, attn_implementation="eager")
    for kind in ["base", *kinds]:
        m = loaded() if kind == "base" else PeftModel.from_pretrained(loaded(), d / "adapters" / kind)
        for i, p in enumerate(prompts):
            want = ref[f"{kind}.{i}.logits"]
            diff = (m.eval()(p[None]).logits[0] - want).abs().max() / want.abs().max()
            if diff > 1e-5:
                print(f"  {d.name}/{kind}: reloaded differs by {diff:.1e}", file=sys.stderr)
                break


def build(d, model_type, config, kinds, seed, lengths, dtype=torch.float32, shard="1GB", old_config=False, small=()):
    cfg = AutoConfig.for_model(model_type, **config)
    cfg._attn_implementation = "eager"
    cfg._experts_implementation = "eager"
    prompts = make_prompts(lengths, cfg.vocab_size, torch.Generator().manual_seed(seed))

    def make_base(g):
        base = new_base(cfg, g)
        round_to(base, dtype)
        return base

    base, base_ref = draw(make_base, range(seed, seed + 500), prompts, "base")
    ref = {f"prompt.{i}": p for i, p in enumerate(prompts)} | base_ref
    copy.deepcopy(base).to(dtype).save_pretrained(d / "model", max_shard_size=shard)
    (d / "model" / "generation_config.json").unlink(missing_ok=True)
    if old_config:
        old_style(d / "model" / "config.json")
    report, noise = {}, 0.0
    for n, (kind, conf) in enumerate(kinds.items()):
        stored = torch.bfloat16 if kind in small else dtype

        def make(g):
            m = get_peft_model(copy.deepcopy(base), new_config(conf))
            randomise(m, g)
            if stored != torch.float32:
                for p in m.parameters():
                    if p.requires_grad:
                        p.data.copy_(p.data.to(stored))
            return m

        try:
            first = seed + 1000 * (n + 1)
            model, got = draw(make, range(first, first + 500), prompts, kind, base_ref)
        except (ValueError, TypeError, NotImplementedError, KeyError, RuntimeError, AttributeError) as e:
            report[kind] = f"refused by PEFT: {type(e).__name__}: {str(e)[:120]}"
            continue
        save_adapter(model, d / "adapters" / kind, stored)
        ref |= got
        report[kind] = conf
        noise = max(noise, float32_noise(model, prompts, got, kind))
    save_file({k: v.contiguous() for k, v in ref.items()}, d / "reference.safetensors")
    (d / "kinds.json").write_text(json.dumps(report, indent=1) + "\n")
    ok = [k for k, v in report.items() if not isinstance(v, str)]
    check_saved(d, ok, prompts, ref)
    refused = {k: v for k, v in report.items() if k not in ok}
    print(f"{d.name}: {len(ok)} adapters, float32 noise {noise:.0e}, refused {refused or 'none'}", file=sys.stderr)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--set", choices=["main", "extra", "relatives"], default="main")
    ap.add_argument("--only", help="comma separated names, default all of the set")
    ap.add_argument("--full", action="store_true", help="every adapter in float32, rank 48 on every matrix")
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--vocab", type=int, default=COMMON["vocab_size"])
    ap.add_argument("--prompts", default=None, help="comma separated prompt lengths")
    a = ap.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    common = dict(COMMON, vocab_size=a.vocab)
    names = a.only.split(",") if a.only else list({"main": ARCHS, "extra": EXTRA, "relatives": RELATIVES}[a.set])
    for name in names:
        if a.set == "main":
            lengths = a.prompts or "1,7,15"       # the last two exceed the sliding window
            over = dict(ARCHS[name])
            args = (over.pop("model_type"), {**common, **over}, main_kinds(name, a.full))
            store = dict(small=() if a.full else SMALL)
        else:
            lengths = a.prompts or "1,11"
            config, kinds, store = (EXTRA if a.set == "extra" else RELATIVES)[name]
            over = {**common, "num_hidden_layers": 2, **config}
            args = (over.pop("model_type", "llama"), over, kinds)
        build(a.out / name, *args, a.seed, [int(n) for n in lengths.split(",")], **store)


if __name__ == "__main__":
    main()
