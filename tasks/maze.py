"""Mazes made by a seed: walls by chance, and exactly one shortest path from start to goal.

A maze is of the split that a hash says, of what its eight turns and mirror images have in common: no split has a copy
of another's maze, whatever their sizes and seeds.
"""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import count as numbers
from typing import Any

from tasks.draw import seed64, split_at, uniform
from tasks.glance import Glance
from tasks.problem import Problem, Rows, TaskError
from tasks.puzzles.grid import Grids
from tasks.whole import is_whole

UNITS = "problems"
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""The share of all mazes that are of a split."""
SIDES = (3, 30)
BAND = 10
"""Steps that one kind of maze spans."""
FRUITLESS = 20_000
"""Mazes in a row without a new one of the kind asked for that end the search."""


def load(
    split: str, side: int = 10, density: float = 0.34, least_steps: int | None = None, size: int = 500, seed: int = 0
) -> Rows:
    """`size` different mazes of `side` by `side` cells, each of which is a wall with the chance `density`.

    The question has a line for each row: `#` a wall, `.` a free cell, `S` the start, `G` the goal. The answer is the
    same with the cells between them on the one shortest path marked `o`. It takes `least_steps` (as many as `side`
    unless given) or more. `columns` have what the rewards `maze_grid` and `maze_path` need. Raises `TaskError`.
    """
    check(split, side, density, least_steps, size, seed)
    return _load(split, side, density, side if least_steps is None else least_steps, size, seed)


def check(
    split: str, side: int = 10, density: float = 0.34, least_steps: int | None = None, size: int = 500, seed: int = 0
) -> str | None:
    """Raises `TaskError` for an unknown split or a value that cannot be."""
    if split not in SPLITS:
        raise TaskError(f"maze has no split {split!r}; it has {', '.join(SPLITS)}")
    if not is_whole(side) or not SIDES[0] <= side <= SIDES[1]:
        raise TaskError(f"maze: side is a whole number from {SIDES[0]} to {SIDES[1]}, not {side!r}")
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0 <= density < 1:
        raise TaskError(f"maze: density is a number from 0 to 1, without 1, not {density!r}")
    if least_steps is not None and (not is_whole(least_steps) or not 1 <= least_steps < side * side):
        raise TaskError(
            f"maze of side {side}: least_steps is a whole number from 1 to {side * side - 1}, not {least_steps!r}"
        )
    for name, value, least in (("size", size, 1), ("seed", seed, 0)):
        if not is_whole(value) or value < least:
            raise TaskError(f"maze: {name} is a whole number of {least} or more, not {value!r}")
    return None


def count(split: str, size: int = 500, **options: Any) -> int:
    """How many problems there are: as many as were asked for."""
    return size


def glance(split: str, side: int = 10, size: int = 500, **options: Any) -> Glance:
    """As many as were asked for, each a grid."""
    length = side * (side + 1) - 1
    return Glance(size, None, length, length, side**2)


def columns(split: str, **options: Any) -> frozenset[str]:
    """The names of its problems' `columns`."""
    return frozenset({"maze"})


def grids(split: str, side: int = 10, **options: Any) -> Grids:
    """Not all of them have a wall, or a cell between start and goal. Raises `TaskError`."""
    check(split, side, **options)
    return Grids("maze", side, "SG", apart=True)


def kind_of(steps: int) -> str:
    """The band of lengths that a maze is of."""
    return f"{steps // BAND * BAND}–{steps // BAND * BAND + BAND - 1} steps"


@lru_cache(8)
def _load(split: str, side: int, density: float, least: int, size: int, seed: int) -> Rows:
    from tasks.puzzles.maze import draw
    from tasks.puzzles.symmetry import canonical_maze

    found: dict[str, Problem] = {}
    repeated, last = 0, 0
    for number in numbers():
        maze = draw(side, density, least, random.Random(seed64("maze", side, density, least, seed, number)))
        form = canonical_maze("".join(maze.lines), side) if maze else ""
        if maze and split_at(uniform("maze symmetry", form), SPLITS) == split:
            repeated += form in found
            if form not in found:
                question, answer = "\n".join(maze.lines), "\n".join(maze.solved)
                name = "".join(maze.lines)
                kind = kind_of(maze.steps)
                found[form] = Problem(name, question, answer, cluster=name, kind=kind, columns={"maze": question})
                last = number
        if len(found) == size:
            return Rows(list(found.values()), dropped=(("duplicate", repeated),) if repeated else ())
        if number - last >= FRUITLESS:
            break
    raise TaskError(
        f"maze of side {side}, density {density}, {least} steps or more, split {split}: {len(found)} found, then none "
        f"in {FRUITLESS:,} tries; {size} asked for: make size or least_steps smaller"
    )
