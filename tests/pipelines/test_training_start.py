"""Where a training begins: at the last one before it, or at one revision of a hub model, read from the hub's cache."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import huggingface_hub.constants
import pytest

from pipelines.context import StageContext
from pipelines.errors import RunError
from pipelines.metrics import Metrics
from pipelines.recipe import Recipe
from pipelines.stop import Stop
from pipelines.training import start_checkpoint


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that holds two commits of one model; the tag `v1` is the older."""
    model = tmp_path / "hub/models--someone--small"
    for commit in ("a" * 40, "b" * 40):
        (model / "snapshots" / commit).mkdir(parents=True)
        (model / "snapshots" / commit / "config.json").write_text("{}")
    (model / "refs").mkdir()
    (model / "refs/v1").write_text("a" * 40)
    (model / "refs/main").write_text("b" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return model / "snapshots"


def start(revision: str | None, directory: Path, inputs: Mapping[str, Path] = {}) -> str:
    recipe = Recipe.model_validate(
        {
            "name": "mine",
            "model": {"path": "someone/small", "revision": revision},
            "data": {"labelled": {"task": "easy-vqa"}},
            "stages": [{"kind": "tune"}],
        }
    )
    metrics = Metrics(directory / "metrics.jsonl")
    context = StageContext(recipe, "tune", directory, inputs, [], 0, Stop(), metrics)
    return start_checkpoint(context, ["tune", "update"])


def test_a_revision_is_the_directory_of_its_commit(hub: Path, tmp_path: Path) -> None:
    assert start("v1", tmp_path) == str(hub / ("a" * 40))
    assert start("main", tmp_path) == str(hub / ("b" * 40))
    assert start(None, tmp_path) == "someone/small"


def test_a_later_training_goes_on_from_the_last_before_it(tmp_path: Path) -> None:
    inputs = {"update": tmp_path / "update", "tune": tmp_path / "base.2"}
    assert start(None, tmp_path, inputs) == str(tmp_path / "base.2/checkpoint")
    assert start(None, tmp_path, dict(reversed(inputs.items()))) == str(tmp_path / "update/checkpoint")


def test_a_revision_that_cannot_be_fetched_is_one_line(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="someone/small, revision v2: cannot be fetched") as caught:
        start("v2", tmp_path)
    assert "\n" not in str(caught.value)
