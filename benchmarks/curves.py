"""Draws what arms have learnt by how much work, from the metrics of runs; more than one seed is a mean and a band.

python -m benchmarks.curves rewards FILE.png REWARD RUN...    # reinforce: by generated tokens and seconds
python -m benchmarks.curves reasoners FILE.png RUN...         # recur with judge_every: by steps, boards and seconds
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, float]
Floats = NDArray[np.float64]
WINDOW = 10
"""Steps that a point of a curve of rewards is the mean of: problems are new in each, so a single one says little."""
STOP = 10
"""A step that takes so many times the median is one during which the run stood still."""


class Curve(NamedTuple):
    """Of one seed: `value` at each point, and where that is on each axis, by its name."""

    axes: Mapping[str, Floats]
    value: Floats


def curves(runs: Sequence[Path], curve: Callable[[Sequence[Row]], Curve | None]) -> dict[str, list[Curve]]:
    """Stage, such as `reinforce@flat` -> its curve in every seed of every run."""
    found: dict[str, list[Curve]] = defaultdict(list)
    for run in runs:
        for file in sorted(run.glob("seed-*/metrics.jsonl")) or [run / "metrics.jsonl"]:
            rows: dict[str, list[Row]] = defaultdict(list)
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                if "step" in row:
                    rows[row["stage"].rpartition("/")[2]].append(row)
            for stage, steps in rows.items():
                if (drawn := curve(list(_last_of_each_step(steps)))) is not None:
                    found[stage].append(drawn)
    return dict(found)


def _last_of_each_step(rows: Sequence[Row]) -> Iterator[Row]:
    """A training that was killed has done the steps after its last save twice; the second time counts."""
    kept = {row["step"]: row for row in rows}
    yield from (kept[step] for step in sorted(kept))


def of_reward(rows: Sequence[Row], reward: str) -> Curve | None:
    """The mean reward of `WINDOW` steps, branches counted among the tokens; None for a stage without that reward."""
    rows = [row for row in rows if f"rewards/{reward}/mean" in row]
    if not rows:
        return None
    window = min(WINDOW, len(rows))
    tokens = [row["step_aware/rollout_tokens"] + row.get("step_aware/branch_tokens", 0) for row in rows]
    axes = {"generated tokens, branches counted": tokens, "seconds of training": [row["step_time"] for row in rows]}
    means = np.array([row[f"rewards/{reward}/mean"] for row in rows])
    smooth = np.convolve(means, np.ones(window) / window, mode="valid")
    return Curve({name: np.cumsum(each)[window - 1 :] for name, each in axes.items()}, smooth)


def of_reasoner(rows: Sequence[Row]) -> Curve | None:
    """The share of validation boards solved with the weights of the step; None for a stage that did not look at any."""
    looks = [number for number, row in enumerate(rows) if "accuracy" in row]
    if not looks:
        return None
    took = np.diff([row["time"] for row in rows], prepend=rows[0]["time"])
    median = float(np.median(took[1:]))
    seconds = np.cumsum(np.where(took > STOP * median, median, took))
    axes = {
        "optimiser steps": np.array([rows[number]["step"] for number in looks], float),
        "boards": np.array([rows[number]["boards_seen"] for number in looks], float),
        "seconds of training": seconds[looks],
    }
    return Curve(axes, np.array([100 * rows[number]["accuracy"] for number in looks]))


def draw(found: Mapping[str, Sequence[Curve]], value: str, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(next(iter(found.values()))[0].axes)
    figure, panels = pyplot.subplots(1, len(names), figsize=(5 * len(names), 4), sharey=True, layout="constrained")
    for number, (stage, seeds) in enumerate(sorted(found.items())):
        for panel, axis in zip(panels, names, strict=True):
            ends = [curve.axes[axis][[0, -1]] for curve in seeds]
            grid = np.linspace(max(first for first, _ in ends), min(last for _, last in ends), 200)
            lines = np.stack([np.interp(grid, curve.axes[axis], curve.value) for curve in seeds])
            panel.plot(grid, lines.mean(0), color=f"C{number}", label=stage.partition("@")[2] or "recipe")
            if len(lines) > 1:
                panel.fill_between(grid, lines.min(0), lines.max(0), color=f"C{number}", alpha=0.15, linewidth=0)
            panel.set(xlabel=axis)
    panels[0].set(ylabel=value)
    panels[0].legend(frameon=False)
    for panel in panels:
        panel.xaxis.set_major_formatter(lambda at, _: f"{at / 1000:g}k" if at >= 10_000 else f"{at:g}")
    figure.savefig(file, dpi=110)


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["rewards", file, reward, *runs] if runs:
            found = curves([Path(run) for run in runs], lambda rows: of_reward(rows, reward))
            value = f"mean reward of sampled answers, {WINDOW} steps"
        case ["reasoners", file, *runs] if runs:
            found = curves([Path(run) for run in runs], of_reasoner)
            value = "% of validation boards solved"
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    if not found:
        print("these runs have no such numbers in their metrics.jsonl", file=sys.stderr)
        return 2
    draw(found, value, Path(file))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
