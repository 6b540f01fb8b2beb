"""Draws what arms of a `reinforce` have learnt by how many generated tokens and seconds, from a run's metrics.

python -m benchmarks.credit_curves RUN REWARD FILE.png
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, float]
WINDOW = 10
"""Steps that a point of a curve is the mean of: problems are new in each, so a single one says little."""


class Curve(NamedTuple):
    """`reward`: mean of the completions' rewards; at each step of one seed."""

    tokens: NDArray[np.float64]
    seconds: NDArray[np.float64]
    reward: NDArray[np.float64]


def curves(run: Path, reward: str) -> dict[str, list[Curve]]:
    """Stage, such as `reinforce@flat` -> its curve in every seed."""
    found: dict[str, list[Curve]] = defaultdict(list)
    files = sorted(run.glob("seed-*/metrics.jsonl")) or [run / "metrics.jsonl"]
    for file in files:
        rows: dict[str, list[Row]] = defaultdict(list)
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if f"rewards/{reward}/mean" in row:
                rows[row["stage"].rpartition("/")[2]].append(row)
        for stage, steps in rows.items():
            found[stage].append(_curve(list(_last_of_each_step(steps)), reward))
    return dict(found)


def _last_of_each_step(rows: Sequence[Row]) -> Iterator[Row]:
    """A training that was killed has done the steps after its last save twice; the second time counts."""
    kept = {row["step"]: row for row in rows}
    yield from (kept[step] for step in sorted(kept))


def _curve(rows: Sequence[Row], reward: str) -> Curve:
    tokens = [row["step_aware/rollout_tokens"] + row.get("step_aware/branch_tokens", 0) for row in rows]
    means = np.array([row[f"rewards/{reward}/mean"] for row in rows])
    window = min(WINDOW, len(means))
    smooth = np.convolve(means, np.ones(window) / window, mode="valid")
    seconds = np.cumsum([row["step_time"] for row in rows])
    return Curve(np.cumsum(tokens)[window - 1 :], seconds[window - 1 :], smooth)


def draw(found: Mapping[str, Sequence[Curve]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for number, (stage, seeds) in enumerate(found.items()):
        for panel, axis in zip(panels, ("tokens", "seconds"), strict=True):
            ends = [getattr(curve, axis)[[0, -1]] for curve in seeds]
            grid = np.linspace(max(first for first, _ in ends), min(last for _, last in ends), 200)
            lines = np.stack([np.interp(grid, getattr(curve, axis), curve.reward) for curve in seeds])
            label = stage.partition("@")[2] or "outcome"
            panel.plot(grid, lines.mean(0), color=f"C{number}", label=label)
            if len(lines) > 1:
                panel.fill_between(grid, lines.min(0), lines.max(0), color=f"C{number}", alpha=0.15, linewidth=0)
    panels[0].set(xlabel="generated tokens, branches counted", ylabel=f"mean reward of sampled answers, {WINDOW} steps")
    panels[0].xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1000:g}k")
    panels[1].set(xlabel="seconds of training")
    panels[0].legend(frameon=False)
    figure.savefig(file, dpi=110)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    draw(curves(Path(arguments[0]), arguments[1]), Path(arguments[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
