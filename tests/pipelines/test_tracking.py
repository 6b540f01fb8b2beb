"""Numbers of a training in trackers are those of `metrics.jsonl`, once each, whoever trains."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.pipelines.test_launch import TUNE, TWO, losses, planned, write


def read(folder: Path) -> dict[int, float]:
    """Step -> loss, as TensorBoard shows them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


def test_tensorboard_shows_what_metrics_say_of_a_training_that_went_on(real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path, TUNE, report_to="tensorboard")
    struck = real_children.trivium(
        "run", recipe, "--runs", tmp_path, "stages.tune.steps=6", fault="kill after save", at=1
    )
    assert struck.code == -signal.SIGKILL, struck.text
    folder = tmp_path / "tiny/_tracking/tune"
    assert sorted(read(folder)) == [1, 2]
    resumed = real_children.trivium("run", recipe, "--runs", tmp_path, "stages.tune.steps=6", TWO)
    assert resumed.code == 0, resumed.text
    shown = read(folder)
    assert list(shown) == list(range(1, 7)) and list(shown.values()) == pytest.approx(losses(tmp_path / "tiny"))
    assert len(list(folder.iterdir())) == 2, "one file of each attempt: the second process writes none"
    without = real_children.trivium("run", recipe, "--runs", tmp_path, "stages.tune.steps=6", "report_to=[]")
    assert "tune: up to date" in without.text, "where numbers go is no reason to train again"

    again = real_children.trivium("run", recipe, "--runs", tmp_path, "stages.tune.steps=3")
    assert again.code == 0 and sorted(read(folder)) == [1, 2, 3], "a training from the start replaces what was shown"


def test_a_tracker_that_is_not_there_is_one_line_of_the_plan(real_children: Any, tmp_path: Path) -> None:
    refused = planned(real_children, write(tmp_path, TUNE, report_to=["trackio"]))
    assert refused.code == 2 and "report_to: trackio is not installed; pip install trackio" in refused.text
    wrong = planned(real_children, write(tmp_path, TUNE, report_to=["tensorbord"]))
    assert wrong.code == 2 and "report_to" in wrong.text and "Traceback" not in wrong.text, wrong.text
    owned = planned(real_children, write(tmp_path, TUNE | {"trl": {"report_to": "wandb"}}))
    assert owned.code == 2 and "the recipe's `report_to`" in owned.text, owned.text
