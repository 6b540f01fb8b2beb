"""A whole recipe on the real vLLM: it proposes, measures, keeps and answers as the same recipe on transformers does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import yaml

from engines.base import EngineError
from engines.vllm import import_vllm

PROMPTS = {"system": None, "propose": ["ask"], "invert": ["invert"]}
BUILD = {"hidden_size": 64, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 320, "vision_hidden_size": 32}
BUILD |= {"vision_layers": 1, "vision_heads": 1, "image_size": 32, "patch_size": 8}
RECIPE: dict[str, Any] = {
    "name": "both",
    "model": {"build": BUILD},
    "engine": {"kind": "transformers"},
    "data": {
        "labelled": {"task": "easy-vqa", "take": 6},
        "unlabelled": {"task": "easy-vqa", "skip": 6, "take": 12},
        "test": {"task": "easy-vqa", "split": "validation", "take": 3},
    },
    "stages": [
        {
            "kind": "tune",
            "steps": 150,
            "batch_size": 32,
            "learning_rate": 3e-3,
            "split": {"pair": 0.8, "question": 0.1, "answer": 0.1},
            "prompts": PROMPTS,
        },
        {"kind": "generate", "decoding": {"max_new_tokens": 40}},
        {
            "kind": "filter",
            "similarity": "lexical",
            "max_new_tokens": 24,
            "measure": {"samples": 0, "other_images": 2, "edge_images": 2},
            "select": {"score": ["consistency", "answer_likelihood"], "fraction": 0.5},
        },
        # At so small a rate the weights are another checkpoint, and its greedy answers the same on both engines.
        {"kind": "update", "steps": 2, "batch_size": 8, "learning_rate": 1e-5},
        {"kind": "evaluate", "decoding": {"max_new_tokens": 8}},
    ],
}
MEASURED = ("score.answer_likelihood", "score.visual_gain", "score.question_gain", "score.image_edge")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Engine -> run. The tuned model is one and the same: its stage is up to date for the second engine."""
    try:
        import_vllm()
    except EngineError as error:
        pytest.skip(str(error))
    place = tmp_path_factory.mktemp("both engines")
    (place / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    found: dict[str, Path] = {}
    for engine in ("transformers", "vllm"):
        command = [sys.executable, "-c", "from pipelines.cli import main; main()", "run", str(place / "recipe.yaml")]
        done = subprocess.run(
            [*command, f"engine.kind={engine}", "--runs", str(place)], capture_output=True, text=True, timeout=540
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found[engine] = Path(shutil.copytree(place / "both", place / engine))
    return found


def table(run: Path, file: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(run / file).to_pylist()
    return rows


def test_each_engine_did_the_work(runs: dict[str, Path]) -> None:
    for engine, run in runs.items():
        manifest = json.loads((run / "filter/manifest.json").read_text())
        assert manifest["source"]["sections"]["engine"]["kind"] == engine
    began = [json.loads((run / "tune/manifest.json").read_text())["started"] for run in runs.values()]
    assert began[0] == began[1], "the second engine is given the first one's model"


def test_greedy_proposals_are_equal(runs: dict[str, Path]) -> None:
    one, other = (table(run, "generate/pairs.parquet") for run in runs.values())
    assert one == other
    assert sum(row["reason"] is None for row in one) > 5


def test_measurements_agree_and_the_same_pairs_are_kept(runs: dict[str, Path]) -> None:
    one, other = (table(run, "filter/triads.parquet") for run in runs.values())
    texts = ("id", "type", "rebuilt_question", "rebuilt_answer", "kept", "reason")
    assert [[row[name] for name in texts] for row in one] == [[row[name] for name in texts] for row in other]
    for name in MEASURED:
        for a, b in zip(one, other, strict=True):
            assert (a[name] is None) == (b[name] is None)
            assert a[name] is None or a[name] == pytest.approx(b[name], abs=2e-4), name
        assert len({row[name] for row in one if row[name] is not None}) > 1, f"{name} says nothing"
    assert any(row["kept"] for row in one) and not all(row["kept"] for row in one)


def test_answers_are_equal(runs: dict[str, Path]) -> None:
    for checkpoint in ("tune", "update"):
        answers = []
        for run in runs.values():
            lines = (run / "evaluate" / checkpoint / "trials.jsonl").read_text().splitlines()
            answers.append([(trial["problem_id"], trial["completion"]) for trial in map(json.loads, lines)])
        assert answers[0] == answers[1] and answers[0]
