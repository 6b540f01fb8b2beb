"""Curves of arms are read from the metrics as they were written, stops and repeated steps left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.curves import curves, main, of_reasoner, of_reward


def _write(folder: Path, *rows: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_reasoner_s_looks_by_steps_boards_and_seconds(tmp_path: Path) -> None:
    times = [0, 2, 4, 5, 500, 502, 504]  # killed after step 4, gone on from step 2 after a while
    steps = [1, 2, 3, 4, 3, 4, 5]
    rows = [
        {"stage": "seed-0/recur@plain", "step": step, "time": 1000.0 + at, "boards_seen": 8 * step, "loss": 1.0}
        | ({"accuracy": step / 10} if step % 2 == 0 else {})
        for step, at in zip(steps, times, strict=True)
    ]
    _write(tmp_path / "one/seed-0", *rows, {"stage": "evaluate", "time": 3.0})
    _write(tmp_path / "two", *[row | {"stage": "recur@plain"} for row in rows[:2]])
    found = curves([tmp_path / "one", tmp_path / "two"], of_reasoner)
    assert list(found) == ["recur@plain"] and len(found["recur@plain"]) == 2
    curve = found["recur@plain"][0]
    assert curve.axes["optimiser steps"].tolist() == [2, 4] and curve.value.tolist() == [20, 40]
    assert curve.axes["boards"].tolist() == [16, 32]
    assert curve.axes["seconds of training"].tolist() == [2, 6]  # the stop is as long as a step
    assert main(["reasoners", str(tmp_path / "it.png"), str(tmp_path / "one"), str(tmp_path / "two")]) == 0
    assert (tmp_path / "it.png").stat().st_size > 10_000


def test_rewards_by_all_tokens_that_were_generated(tmp_path: Path) -> None:
    rows = [
        {"stage": "reinforce", "step": step, "step_time": 0.5, "step_aware/rollout_tokens": 10, "rewards/r/mean": step}
        | ({"step_aware/branch_tokens": 5} if step > 1 else {})
        for step in range(1, 13)
    ]
    _write(tmp_path / "run", *rows)
    (curve,) = curves([tmp_path / "run"], lambda rows: of_reward(rows, "r"))["reinforce"]
    assert curve.value == pytest.approx(np.array([5.5, 6.5, 7.5]))
    assert curve.axes["generated tokens, branches counted"].tolist() == [145, 160, 175]
    assert curve.axes["seconds of training"].tolist() == [5, 5.5, 6]
    assert curves([tmp_path / "run"], lambda rows: of_reward(rows, "another")) == {}


def test_what_cannot_be_drawn_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write(tmp_path / "run", {"stage": "recur", "step": 1, "time": 0.0})
    assert main(["reasoners", "it.png", str(tmp_path / "run")]) == 2
    assert "no such numbers" in capsys.readouterr().err
    assert main(["rewards", "it.png"]) == 2
