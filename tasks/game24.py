"""The game of 24: 1,362 puzzles of four numbers from 1 to 13, ranked by how long people take, easiest first.

The table (from 4nums.com) comes inside the package `tree-of-thoughts-llm` (MIT, Princeton NLP); only that file is read.
Ranks 901 to 1,000 are the set of Yao et al. 2023 (arXiv 2305.10601). The package asks for old versions of everything,
which is why it is installed without what it asks for, and is no extra of ours.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from tasks import packages
from tasks.countdown import question
from tasks.problem import Problem, Rows, TaskError

UNITS = "problems"
SPLITS = ("test",)
TARGET = 24
_INSTALL = "pip install --no-deps tree-of-thoughts-llm"


def load(split: str, ranks: Sequence[int] | None = None) -> Rows:
    """The puzzles, or those from the first to the last of `ranks`; the answer is one solution.

    `kind` is the band of the share of people who solve it. `columns` have what the reward `countdown` needs, `rank`,
    and that share as `solve_rate`. Raises `TaskError`.
    """
    check(split, ranks)
    rows = _table()
    first, last = ranks or (1, len(rows))
    return Rows([_problem(rank, *rows[rank - 1]) for rank in range(first, last + 1)])


def check(split: str, ranks: Sequence[int] | None = None) -> str | None:
    """Raises `TaskError` for an unknown split, for ranks that are not there, and where the package is missing."""
    if split not in SPLITS:
        raise TaskError(f"game24 has no split {split!r}; it has {', '.join(SPLITS)}")
    most = len(_table())
    if ranks is not None:
        whole = isinstance(ranks, Sequence) and all(type(rank) is int for rank in ranks)
        if not whole or len(ranks) != 2 or not 1 <= ranks[0] <= ranks[1] <= most:
            raise TaskError(f"game24: ranks are a first and a last one from 1 to {most}, not {ranks!r}")
    return None


def count(split: str, ranks: Sequence[int] | None = None) -> int:
    """How many problems there are."""
    return ranks[1] - ranks[0] + 1 if ranks else len(_table())


def columns(split: str, **options: Any) -> frozenset[str]:
    """The names of its problems' `columns`."""
    return frozenset({"numbers", "target", "rank", "solve_rate"})


@lru_cache(1)
def _table() -> Sequence[tuple[str, float]]:
    """Numbers, and the share of people who solve them, in the order of their ranks from 1."""
    path: Path = packages.folder("tot", "tree-of-thoughts-llm", _INSTALL) / "data" / "24" / "24.csv"
    if not path.is_file():
        raise TaskError(f"{path}: no such file: the package `tot` that is installed is another one; {_INSTALL}")
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["Puzzles"], float(row["Solved rate"].rstrip("%")) / 100) for row in csv.DictReader(file)]


def _problem(rank: int, written: str, solve_rate: float) -> Problem:
    numbers = [int(each) for each in written.split()]
    about = {"numbers": numbers, "target": TARGET, "rank": rank, "solve_rate": solve_rate}
    band = int(solve_rate * 10) * 10
    kind = f"{band}–{band + 9} % solve it"
    return Problem(written, question(numbers, TARGET), _solution(written), cluster=written, kind=kind, columns=about)


@cache
def _solution(written: str) -> str:
    from tasks.puzzles.expressions import Expressions

    numbers = [int(each) for each in written.split()]
    # Few puzzles need fractions on the way, and to go through those takes twenty times as long.
    for whole in (True, False):
        if found := Expressions(numbers, whole).written(TARGET):
            return found
    raise AssertionError(f"{written} has no solution")
