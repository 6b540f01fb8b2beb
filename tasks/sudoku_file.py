"""Sudoku puzzles from a file: Sudoku-Extreme's CSV, on the hub or on disk, or a folder as HRM trains on."""

from __future__ import annotations

from functools import partial
from math import isqrt
from typing import Any

from tasks.glance import Glance
from tasks.problem import Problem, Rows
from tasks.puzzles import files
from tasks.puzzles.grid import SIDES, Grids
from tasks.sudoku import written

UNITS = "problems"
SIGNS = ".123456789"
_RATINGS = ((100, "rating 100 or more"), (10, "rating 10–99"), (1, "rating 1–9"), (0, "rating 0"))


def load(split: str, source: str, unique: bool = True, size: int | None = None, seed: int = 0) -> Rows:
    """The puzzles of `source`, as the task `sudoku` writes them: all, or `size` of its rows, drawn by `seed`.

    `source` is a CSV file with columns `question` and `answer` (cells in reading order, `.` or 0 for an empty one), a
    folder with `SPLIT.csv`, a folder with `SPLIT/dataset.json` and arrays (HRM's format), or a hub dataset with
    `SPLIT.csv`, such as sapientinc/sudoku-extreme. Every puzzle is solved: rows of another length, with other
    characters, without an empty cell, whose answer contradicts a clue or is no solution, without a solution, or, if
    `unique`, with several, are counted and named. `kind` is the band of the `rating`. Copies of one original are one
    cluster. Raises `TaskError`.
    """
    check(split, source, unique, size, seed)
    return files.problems(split, source, SIGNS, partial(_read, unique=unique), size, seed)


def check(split: str, source: str, unique: bool = True, size: int | None = None, seed: int = 0) -> str | None:
    """Raises `TaskError` where a local source is missing or has no such columns; a line on what is on the hub."""
    return files.check(split, source, size, seed)


def glance(split: str, source: str, size: int | None = None, **options: Any) -> Glance:
    """As many as were asked for, or as a local source has; what is not here has grids as large as the public data's."""
    rows, cells = files.glance(split, source)
    cells = cells or 81
    return Glance(rows if size is None else size, None, 2 * cells - 1, 2 * cells - 1, cells)


def columns(split: str, **options: Any) -> frozenset[str]:
    """The names of its problems' `columns`."""
    return frozenset({"puzzle"})


def grids(split: str, **options: Any) -> Grids:
    """Of any side: those digits that all sides have."""
    return Grids("sudoku", None, f"_{SIGNS[1 : min(SIDES) + 1]}")


def _read(row: files.Row, unique: bool) -> Problem | str:
    from tasks.puzzles.solver import solve

    side = isqrt(len(row.question))
    if side * side != len(row.question) or side not in SIDES or len(row.answer) != len(row.question):
        return "wrong length"
    digits = SIGNS[1 : side + 1]
    if set(row.question) - set(f"{digits}.0_") or set(row.answer) - set(digits):
        return "other characters"
    cells = [int(sign) if sign in digits else 0 for sign in row.question]
    answer = [int(sign) for sign in row.answer]
    if any(clue not in (0, cell) for clue, cell in zip(cells, answer, strict=True)):
        return "clue contradicts answer"
    if 0 not in cells:
        return "no empty cell"
    found = len(solve(cells, side, 2 if unique else 1))
    if found != 1:
        return "several solutions" if found else "no solution"
    # A full grid that keeps the rules is its own solution.
    if not len(solve(answer, side, 1)):
        return "answer is no solution"
    clues = "".join(map(str, cells))
    kind = next((name for least, name in _RATINGS if int(row.rating) >= least), "") if row.rating.isdecimal() else ""
    return Problem(
        str(row.place), written(cells, side), written(answer, side), cluster=row.group, kind=kind,
        columns={"puzzle": clues},
    )  # fmt: skip
