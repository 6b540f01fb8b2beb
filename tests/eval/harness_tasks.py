"""A tiny model and local tasks for the tests of the bridge, and what lm-evaluation-harness writes about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from engines.checkpoint import load_model
from selfrefine.build import BuildSpec, build_model

QUESTIONS = [f"what is {a} and {b}?" for a in range(4) for b in range(2)]
FILTERS = [
    {"name": "strict-match", "filter": [{"function": "regex", "regex_pattern": "([a-z]+)"}]},
    {"name": "flexible-extract", "filter": [{"function": "regex", "regex_pattern": "([a-z0-9]+)", "group_select": -1}]},
]


def tiny_model(folder: Path) -> Path:
    """A language model with weights that answer each prompt differently; a fresh one repeats one token."""
    spec = BuildSpec(
        architecture="llama", hidden_size=64, layers=2, heads=2, kv_heads=1, vocab_size=400, max_length=512
    )
    build_model(spec, [*QUESTIONS, "red circle", "the answer is 42"], folder, seed=0)
    model = load_model(str(folder))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    model.save_pretrained(folder)
    return folder


def write_task(folder: Path, name: str, answers: list[str] | None = None, **changes: Any) -> Path:
    """A task of the harness on local files: a YAML and its rows. `changes` replace keys; None takes one away."""
    folder.mkdir(parents=True, exist_ok=True)
    golds = answers or ["42"] * len(QUESTIONS)
    rows = [{"question": q, "answer": a, "choices": ["red", "blue"]} for q, a in zip(QUESTIONS, golds, strict=True)]
    data = folder / f"{name}.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    filters = [{**each, "filter": [*each["filter"], {"function": "take_first"}]} for each in FILTERS]
    config: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")},
        "output_type": "generate_until",
        "test_split": "test",
        "fewshot_split": "test",
        "num_fewshot": 1,
        "description": "Answer in a word.",
        "doc_to_text": "Q: {{question}}\nA:",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["42", "\n\n"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": filters,
        "metadata": {"version": 3.0},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (config | changes).items() if v is not None}), encoding="utf-8")
    return path
