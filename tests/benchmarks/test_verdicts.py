"""Seeds that were run apart are put together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from benchmarks.verdicts import main, table
from pipelines.cli import app


def test_seeds_of_several_runs_are_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    puzzles = {"task": "sudoku", "least_empty": 1, "most_empty": 1, "size": 12}
    recipe = {
        "engine": {"kind": "latent"},
        "data": {name: puzzles | {"split": name} for name in ("train", "test")},
        "stages": [
            {
                "kind": "recur", "data": "train", "steps": 60, "batch_size": 12, "warmup_steps": 0,
                "learning_rate": 0.01, "reasoner": {"hidden_size": 32, "heads": 2, "updates": 1, "segments": 1},
            },
            {"kind": "evaluate", "reward": "sudoku"},
            {"kind": "evaluate", "name": "cells", "reward": "sudoku_cells"},
        ],
        "arms": {"plain": {"recur.reasoner.recurrence": "plain"}},
    }  # fmt: skip
    file, wanted = tmp_path / "verdicts.json", {}
    for seed in (10, 2):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"name": f"it-{seed}", "seeds": [seed]}))
        done = CliRunner().invoke(app, ["run", str(tmp_path / "recipe.yaml"), "--runs", str(tmp_path)])
        assert done.exit_code == 0, done.output
        run = tmp_path / f"it-{seed}"
        with pytest.raises(SystemExit, match="2"):
            main([str(file), str(run)])
        assert "--evaluation is one of " in capsys.readouterr().err
        with pytest.raises(SystemExit, match="2"):
            main([str(file), str(run), "--evaluation", "evaluate", "--against", "plain"])
        assert "--against is one of recur, recur@plain" in capsys.readouterr().err
        assert main([str(file), str(run), "--evaluation", "evaluate", "--against", "recur@plain"]) == 0
        result = json.loads((run / f"seed-{seed}/evaluate/eval.json").read_text())
        wanted[str(seed)] = {each["label"]: each["accuracy"]["value"] for each in result["checkpoints"]}
    kept = json.loads(file.read_text())["seeds"]
    assert list(kept) == ["2", "10"]
    for seed, arms in kept.items():
        assert {arm: row.count("1") / 12 for arm, row in arms.items()} == pytest.approx(wanted[seed])
    assert len({row for arms in kept.values() for row in arms.values()}) > 1
    assert "| minus `recur@plain` | seed 2 | seed 10 |" in capsys.readouterr().out.splitlines()[-4]


def test_differences_are_paired_over_problems_and_seeds() -> None:
    draw = np.random.default_rng(0)
    rows = {seed: {arm: "".join(map(str, draw.integers(0, 2, 200))) for arm in ("a", "bb")} for seed in "01"}
    shares = {arm: [rows[seed][arm].count("1") / 2 for seed in "01"] for arm in ("a", "bb")}
    line = table(rows, "a").splitlines()[3]
    assert line.startswith(f"| bb | {np.mean(shares['bb']):.1f} [")
    assert f"| {np.mean(shares['bb']) - np.mean(shares['a']):+.1f} [" in line
    assert line.endswith(f"| {shares['bb'][0]:.1f} | {shares['bb'][1]:.1f} |")


def test_a_run_that_was_not_evaluated_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "it.json"), str(tmp_path)]) == 2
    assert "no seed has been evaluated yet" in capsys.readouterr().err and not (tmp_path / "it.json").exists()
