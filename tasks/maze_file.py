"""Mazes from a file: Maze-Hard's CSV, on the hub or on disk, or a folder as HRM trains on."""

from __future__ import annotations

from functools import partial
from math import isqrt
from typing import Any

from tasks.glance import Glance
from tasks.maze import kind_of
from tasks.problem import Problem, Rows
from tasks.puzzles import files
from tasks.puzzles.grid import Grids

UNITS = "problems"
SIGNS = "# SGo"


def load(split: str, source: str, unique: bool = False, size: int | None = None, seed: int = 0) -> Rows:
    """The mazes of `source`, as the task `maze` writes them: all, or `size` of its rows, drawn by `seed`.

    `source` is a CSV file with columns `question` and `answer` (squares of `#`, space, `S`, `G`, in the answer `o`, in
    reading order), a folder with `SPLIT.csv`, a folder with `SPLIT/dataset.json` and arrays (HRM's format), or a hub
    dataset with `SPLIT.csv`, such as sapientinc/maze-30x30-hard-1k. Rows of another length, with other characters,
    without one start and one goal, whose answer is another maze or marks no shortest path, without a path, or, if
    `unique`, with several shortest ones, are counted and named. Copies of one original are one cluster. Raises
    `TaskError`.
    """
    check(split, source, unique, size, seed)
    return files.problems(split, source, SIGNS, partial(_read, unique=unique), size, seed)


def check(split: str, source: str, unique: bool = False, size: int | None = None, seed: int = 0) -> str | None:
    """Raises `TaskError` where a local source is missing or has no such columns; a line on what is on the hub."""
    return files.check(split, source, size, seed)


def glance(split: str, source: str, size: int | None = None, **options: Any) -> Glance:
    """As many as were asked for, or as a local source has; what is not here has grids as large as the public data's."""
    rows, cells = files.glance(split, source)
    cells = cells or 900
    length = cells + isqrt(cells) - 1
    return Glance(rows if size is None else size, None, length, length, cells)


def columns(split: str, **options: Any) -> frozenset[str]:
    """The names of its problems' `columns`."""
    return frozenset({"maze"})


def grids(split: str, **options: Any) -> Grids:
    """Of any side."""
    return Grids("maze", None, "SG")


def _read(row: files.Row, unique: bool) -> Problem | str:
    from tasks.puzzles.maze import FREE, PATH, is_solved, shortest

    side = isqrt(len(row.question))
    if not side or side * side != len(row.question) or len(row.answer) != len(row.question):
        return "wrong length"
    question, answer = row.question.replace(" ", FREE), row.answer.replace(" ", FREE)
    if set(question) - set("#.SG") or set(answer) - set("#.SGo"):
        return "other characters"
    if question.count("S") != 1 or question.count("G") != 1:
        return "not one start and one goal"
    if answer.replace(PATH, FREE) != question:
        return "answer is another maze"
    lines, marked = ([text[start : start + side] for start in range(0, len(text), side)] for text in (question, answer))
    steps, ways = shortest(lines, FREE)
    if steps < 0:
        return "no solution"
    if unique and ways > 1:
        return "several solutions"
    if not is_solved(marked, lines, steps):
        return "answer marks no shortest path"
    shown = "\n".join(lines)
    return Problem(
        str(row.place), shown, "\n".join(marked), cluster=row.group, kind=kind_of(steps), columns={"maze": shown}
    )
