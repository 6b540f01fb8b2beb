"""Numbers of a training in trackers are those of `metrics.jsonl`, once each, whoever trains."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Trainer, TrainingArguments

from selfrefine.tracking import Tracking, track
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


WANDB = """\
# As far as transformers' callback uses it: with a run already there, `init` returns that one.
runs, run = [], None


class Run:
    def __init__(self, given):
        self.given, self.logged, self.summary, self.over = given, [], {}, False

    def _label(self, **given):
        pass


class config(dict):
    pass


config = config()
config.update = lambda values, allow_val_change: None


def init(**given):
    global run
    if run is None:
        runs.append(run := Run(given))
    return run


def log(values):
    run.logged.append(values)


def finish():
    global run
    run.over, run = True, None
"""


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * x).mean()}


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Stands for wandb, which is not there."""
    for name, text in (("__init__", WANDB), ("sdk/__init__", ""), ("sdk/lib/__init__", "")):
        (file := tmp_path / "site/wandb" / f"{name}.py").parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)
    (tmp_path / "site/wandb/sdk/lib/config_util.py").write_text("class ConfigError(Exception):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in ("WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    yield importlib.import_module("wandb")
    for name in [each for each in sys.modules if each.partition(".")[0] == "wandb"]:
        del sys.modules[name]


def test_each_training_of_a_process_has_a_run_of_its_own_at_wandb(wandb: Any, tmp_path: Path) -> None:
    def train(stage: str, step: int = 0) -> None:
        arguments = TrainingArguments(
            str(tmp_path / "saves"), max_steps=2, logging_steps=1, save_strategy="no", use_cpu=True, report_to=[]
        )
        trainer = Trainer(Tiny(), arguments, train_dataset=[{"x": 1.0}] * 8)
        track(trainer, Tracking(["wandb"], f"tiny/{stage}", tmp_path / "_tracking" / stage), step)
        trainer.train()

    for stage, step in (("tune", 0), ("reinforce", 0), ("reinforce", 2), ("reinforce", 0)):
        train(stage, step)
    runs = wandb.runs
    assert [run.given["name"] for run in runs] == ["tiny/tune", *["tiny/reinforce"] * 3]
    assert [Path(run.given["dir"]).name for run in runs] == ["tune", *["reinforce"] * 3]
    assert all(run.over and sum("train/loss" in row for row in run.logged) == 2 for run in runs)
    first, second, goes_on, anew = (run.given["id"] for run in runs)
    assert second == goes_on and len({first, second, anew}) == 3, "what goes on does so in its run, and nothing else"
