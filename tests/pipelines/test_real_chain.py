"""The real stages, killed at every write, end as if undisturbed; finished work is never done again."""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import yaml

LANGUAGE = {"hidden_size": 64, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 320}
VISION = {"vision_hidden_size": 32, "vision_layers": 1, "vision_heads": 1, "image_size": 32, "patch_size": 8}
PROMPTS = {"system": None, "propose": ["ask"], "invert": ["invert"]}
STAGES: list[dict[str, Any]] = [
    {"kind": "tune", "steps": 4, "save_every": 2, "batch_size": 8, "learning_rate": 1e-5, "prompts": PROMPTS},
    {"kind": "generate", "chunk": 8, "decoding": {"max_new_tokens": 40, "temperature": 1.0}},
    {
        "kind": "filter",
        "chunk": 4,
        "similarity": "lexical",
        "max_new_tokens": 24,
        "audit": True,
        "measure": {"samples": 2, "other_images": 2, "edge_images": 2},
        "select": {"fraction": 0.5},
    },
    {"kind": "update", "steps": 4, "save_every": 2, "batch_size": 8},
    {"kind": "evaluate", "chunk": 12, "decoding": {"max_new_tokens": 8}},
    {"kind": "report"},
]
DATA = {
    "labelled": {"task": "easy-vqa", "take": 6},
    "unlabelled": {"task": "easy-vqa", "skip": 6, "take": 16},
    "test": {"task": "easy-vqa", "split": "validation", "take": 2},
}
Take = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module")
def parent(real_children: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that can ask: few images, learnt nearly by heart, by the `tune` stage itself."""
    place = tmp_path_factory.mktemp("parent")
    split = {"pair": 0.8, "question": 0.1, "answer": 0.1}
    tune = {"kind": "tune", "steps": 150, "batch_size": 32, "learning_rate": 3e-3, "split": split, "prompts": PROMPTS}
    recipe = write(place, name="parent", model={"build": LANGUAGE | VISION}, stages=[tune])
    done = real_children.trivium("run", recipe, "--runs", place)
    assert done.code == 0, done.text
    return place / "parent/tune/checkpoint"


@pytest.fixture(scope="module")
def undisturbed(real_children: Any, parent: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(recipe, runs) of a whole run with an arm that selects otherwise."""
    place = tmp_path_factory.mktemp("undisturbed")
    control = {"filter.select.score": "random", "filter.select.sizes": "original"}
    recipe = write(place, model={"path": str(parent)}, arms={"random": control})
    done = real_children.trivium("run", recipe, "--runs", place / "runs")
    assert done.code == 0, done.text
    return recipe, place / "runs"


def write(directory: Path, **changes: Any) -> Path:
    recipe = {"name": "tiny", "engine": {"kind": "transformers"}, "data": DATA, "stages": STAGES}
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | changes))
    return path


def test_killed_after_every_write(
    real_children: Any, undisturbed: tuple[Path, Path], snapshot: Take, tmp_path: Path
) -> None:
    """One run that dies at every write there is: in turn right before a file gets its name, and right after.

    An attempt that left more finished work behind begins to count its stage's writes anew, any other dies one write
    later than the one before.
    """
    recipe, whole = undisturbed
    command = ("run", recipe, "--runs", tmp_path)
    finished: dict[Path, tuple[int, int]] = {}
    deaths, at = 0, 1
    while True:
        fault = ("kill before", "kill after")[deaths % 2]
        outcome = real_children.trivium(*command, fault=fault, at=at)
        for path, identity in finished.items():
            assert not path.exists() or identify(path) == identity, f"{path} was made again after death {deaths}"
        more = {path: identify(path) for path in kept(tmp_path / "tiny")}
        at = 2 if more.keys() > finished.keys() else at + 1
        finished = more
        if outcome.code == 0:
            break
        assert outcome.code == -signal.SIGKILL, outcome.text
        deaths += 1
        assert deaths < 150
    # The least there can be: outputs and manifest of each stage, and shards with their keys.
    assert deaths > 40, deaths
    assert real_children.trivium(*command).code == 0
    same(snapshot(tmp_path / "tiny"), snapshot(whole / "tiny"))


def identify(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def kept(root: Path) -> Iterator[Path]:
    """Files that hold finished work, never to be made again: shards, manifests and trained weights."""
    for name in ("manifest.json", "0*.jsonl", "checkpoint/model.safetensors"):
        yield from root.rglob(name)


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal but for times, of which the page is full."""
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        if name == "report/manifest.json":
            for each in (found[name], content):
                del each["files"], each["numbers"]
        if not name.endswith("report.html"):
            assert found[name] == content, name


def test_finished_run_loads_no_model_and_changes_nothing(real_children: Any, undisturbed: tuple[Path, Path]) -> None:
    recipe, runs = undisturbed
    before = {path: identify(path) for path in runs.rglob("*") if path.name != "lock"}
    again = again_without_a_model(real_children, "run", recipe, "--runs", runs)
    assert again.text.count(": up to date") == 8 and again.writes == 0
    assert {path: identify(path) for path in before} == before


def test_a_control_is_of_the_same_size_in_each_type(undisturbed: tuple[Path, Path]) -> None:
    _, runs = undisturbed
    chosen, control = (
        [row for row in triads(runs / "tiny" / name) if row["kept"]] for name in ("filter", "filter@random")
    )
    assert Counter(row["type"] for row in chosen) == Counter(row["type"] for row in control)
    assert {row["id"] for row in chosen} != {row["id"] for row in control}


def test_another_selection_opens_no_engine(real_children: Any, undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, runs = undisturbed
    assert not (runs / "tiny/filter@random/measured").exists(), "an arm reads the original's measurements"
    shutil.copytree(runs, tmp_path / "runs")
    settings = ("stages.filter.select.fraction=1.0", "--until", "filter", "--runs", tmp_path / "runs")
    changed = again_without_a_model(real_children, "run", recipe, *settings)
    assert "filter: select.fraction 0.5 -> 1.0" in changed.text
    before, after = (triads(place / "tiny/filter") for place in (runs, tmp_path / "runs"))
    scored = [row["score.consistency"] is not None for row in after]  # what could not be rebuilt has no score
    assert [row["kept"] for row in after] == scored
    assert len(before) == len(after) and sum(scored) > sum(row["kept"] for row in before) > 0
    for a, b in zip(before, after, strict=True):
        assert {k: v for k, v in a.items() if k not in ("kept", "reason")}.items() <= b.items()


def again_without_a_model(children: Any, *arguments: object) -> Any:
    """A run in which opening an engine, or beginning to train, would be its end."""
    done = children.trivium(*arguments, fault="no model")
    assert done.code == 0, done.text
    return done


def triads(stage: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(stage / "triads.parquet").to_pylist()
    return rows


def test_kill_inside_training_goes_on_from_its_last_save(
    real_children: Any, undisturbed: tuple[Path, Path], snapshot: Take, tmp_path: Path
) -> None:
    """The weights come back: a training that lost them would end elsewhere."""
    recipe, whole = undisturbed
    command = ("run", recipe, "--until", "tune", "--runs", tmp_path)
    for fault in ("kill in save", "kill after save"):
        struck = real_children.trivium(*command, fault=fault, at=1)
        assert struck.code == -signal.SIGKILL, struck.text
    assert list((tmp_path / "tiny/tune/trainer").glob("*/complete")), "the second attempt saved"
    resumed = real_children.trivium(*command)
    assert resumed.code == 0, resumed.text
    expected = snapshot(whole / "tiny/tune")
    assert snapshot(tmp_path / "tiny/tune") == expected
    logged = [json.loads(line) for line in (tmp_path / "tiny/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2, 3, 4]


def test_second_round_asks_about_new_images_and_starts_from_the_update(
    real_children: Any, parent: Path, tmp_path: Path
) -> None:
    recipe = write(tmp_path, model={"path": str(parent)}, rounds=2)
    done = real_children.trivium("run", recipe, "--runs", tmp_path)
    assert done.code == 0, done.text
    root = tmp_path / "tiny"
    asked = [
        set(parquet.read_table(root / name / "pairs.parquet")["image_id"].to_pylist())
        for name in ("generate", "generate.2")
    ]
    assert not asked[0] & asked[1]
    assert len(asked[0] | asked[1]) == 16
    accepted = [
        [row["id"] for row in parquet.read_table(root / name / "accepted.parquet").to_pylist()]
        for name in ("update", "update.2")
    ]
    assert accepted[1][: len(accepted[0])] == accepted[0] and len(accepted[1]) > len(accepted[0]) > 0
    second = json.loads((root / "tune.2/manifest.json").read_text())
    update = json.loads((root / "update/manifest.json").read_text())
    assert list(second["inputs"]) == ["tune", "update"], "it goes on from the last"
    assert second["rows_in"] == update["rows_in"], "D_1 is the seed and what round 1 accepted"
    labels = [each["label"] for each in json.loads((root / "evaluate/eval.json").read_text())["checkpoints"]]
    assert labels == ["pretrained", "tune", "update", "tune.2", "update.2"]
