"""Small real models that say one letter after a prompt, and a suite that asks for letters."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfrefine.build import BuildSpec, build_model

ROWS = [
    {"id": f"q{i}", "question": f"letter {i}?", "answer": "ab"[i % 3 == 0], "kind": ("even", "odd")[i % 2]}
    for i in range(30)
]
SPEC = BuildSpec(architecture="llama", hidden_size=48, layers=1, heads=2)


def make_models(root: Path) -> Path:
    """`first` most likely says "a", right for 20 of 30, `second` "b"; and a masked model that knows nothing."""
    texts = [row["question"] + row["answer"] for row in ROWS]
    build_model(SPEC.model_copy(update={"architecture": "masked_llama"}), texts, root / "masked", seed=0)
    for name, favourite in {"first": "a", "second": "b"}.items():
        build_model(SPEC, texts, root / name, seed=0)
        _say(root / name, favourite)
    return root


@torch.no_grad()
def _say(path: Path, favourite: str) -> None:
    """Sets the weights so that one letter follows a prompt, twice as likely the favourite, and then the end."""
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    a, b = (tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "ab")
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.full_like(model.lm_head.weight, 0.0))
    layer = model.model.layers[0]
    for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
        linear.weight.zero_()  # what is said depends on the token before alone
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.zero_()
    embedding[:, 0] = 1.0
    embedding[[a, b]] = torch.nn.functional.one_hot(torch.tensor(1), embedding.shape[1]).float()
    size = embedding.shape[1] ** 0.5  # of what the last norm makes of a single 1
    head[:, :2] = -40.0 / size
    head[[a, b], 0] = 0.0
    head[a if favourite == "a" else b, 0] = math.log(2) / size
    head[tokenizer.eos_token_id, 1] = 0.0
    model.save_pretrained(path)


def write(path: Path, file: Path, **changes: Any) -> Path:
    values = {
        "version": 1,
        "summary": "letters",
        "data": {"task": "table", "source": str(file.relative_to(path.parent))},
        "problems": len(ROWS),
        "prompt": {"before": "Q: ", "after": " A:"},
        "reward": "exact_match",
        "decoding": {"max_new_tokens": 4},
        **changes,
    }
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return path


def result(runs: Path, run: str, stage: str = "letters") -> dict[str, Any]:
    return json.loads((runs / run / stage / "eval.json").read_text())  # type: ignore[no-any-return]


def trials(runs: Path, run: str, label: str, stage: str = "letters") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (runs / run / stage / label / "trials.jsonl").read_text().splitlines()]
