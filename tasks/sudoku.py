"""Sudoku puzzles made by a seed: 4 by 4, 6 by 6 (boxes of 2 by 3) or 9 by 9, with one solution or with any number.

A puzzle is of the split that a hash says: of its clues, or of what all its symmetric copies have in common. So splits
have none in common, whatever their sizes and seeds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count as numbers
from typing import Any

from tasks.draw import seed64, split_at, uniform
from tasks.glance import Glance
from tasks.problem import Problem, Rows, TaskError
from tasks.puzzles.grid import LEVELS, SIDES, Grids, full_grid
from tasks.whole import is_whole

UNITS = "problems"
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""The share of all puzzles that are of a split."""
EMPTY = {4: (6, 10), 6: (12, 20), 9: (30, 48)}
"""The fewest and most empty cells, where none are asked for."""
LEVELS_OF = {4: (), 6: LEVELS[:3], 9: LEVELS}
"""The levels that puzzles of a side have: of side 4, all are easy."""
SPLIT_BY = ("clues", "symmetry")
FRUITLESS = 50_000
"""Grids in a row without a new puzzle that end the search for puzzles of a level."""


def load(
    split: str, side: int = 4, least_empty: int | None = None, most_empty: int | None = None, unique: bool = True,
    level: str | None = None, split_by: str | None = None, size: int = 500, seed: int = 0,
) -> Rows:  # fmt: skip
    """`size` different puzzles. The question is the grid, `_` for an empty cell, the answer the same grid filled in.

    `unique: false` leaves any cells empty, so that a puzzle may have many solutions, of which the answer is one.
    `level` (side 9: easy, medium, hard, extreme; side 6: not extreme) gives puzzles that are hard to a solver, with no
    clue that could be spared. `split_by: symmetry`, which a level brings along, parts the splits so that no symmetric
    copy of a puzzle is in another; of side 9, if `unique`, no copy of its solution either. `clues` parts them by the
    puzzle as it is, with nothing said of copies.
    `columns` have what the rewards `sudoku` and `sudoku_cells` need, and a level's mean `backtracks`. Raises
    `TaskError`.
    """
    check(split, side, least_empty, most_empty, unique, level, split_by, size, seed)
    if level is not None:
        return _of_level(split, side, level, size, seed)
    return _load(split, side, *_range(side, least_empty, most_empty), unique, split_by == "symmetry", size, seed)


def check(
    split: str, side: int = 4, least_empty: int | None = None, most_empty: int | None = None, unique: bool = True,
    level: str | None = None, split_by: str | None = None, size: int = 500, seed: int = 0,
) -> str | None:  # fmt: skip
    """Raises `TaskError` for an unknown split or a value that cannot be."""
    if split not in SPLITS:
        raise TaskError(f"sudoku has no split {split!r}; it has {', '.join(SPLITS)}")
    if not is_whole(side) or side not in SIDES:
        raise TaskError(f"sudoku: side is one of {', '.join(map(str, SIDES))}, not {side!r}")
    if not isinstance(unique, bool):
        raise TaskError(f"sudoku: unique is true or false, not {unique!r}")
    for name, given in (("least_empty", least_empty), ("most_empty", most_empty)):
        if given is not None and not is_whole(given):
            raise TaskError(f"sudoku: {name} is a whole number, not {given!r}")
    for name, value, least in (("size", size, 1), ("seed", seed, 0)):
        if not is_whole(value) or value < least:
            raise TaskError(f"sudoku: {name} is a whole number of {least} or more, not {value!r}")
    if split_by not in (None, *SPLIT_BY):
        raise TaskError(f"sudoku: split_by is one of {', '.join(SPLIT_BY)}, not {split_by!r}")
    if level is not None:
        _check_level(side, level, split_by, unique and least_empty is None and most_empty is None)
    low, high = _range(side, least_empty, most_empty)
    # Beyond, hardly any grid still has one solution.
    most = EMPTY[side][1] + (2 if side == 4 else 4) if unique else side * side - 1
    if not 1 <= low <= high <= most:
        raise TaskError(f"sudoku of side {side}: 1 ≤ least_empty ≤ most_empty ≤ {most}, not {low!r} and {high!r}")
    return None


def _check_level(side: int, level: str, split_by: str | None, alone: bool) -> None:
    if level not in LEVELS_OF[side]:
        there = "; ".join(f"side {each} has {', '.join(names)}" for each, names in LEVELS_OF.items() if names)
        raise TaskError(f"sudoku of side {side} has no level {level!r}; {there}")
    if not alone:
        raise TaskError("sudoku: a level's puzzles have one solution and no clue to spare: leave out least_empty, "
                        "most_empty and unique, or the level")  # fmt: skip
    if split_by == "clues":
        raise TaskError("sudoku: puzzles of a level are split by symmetry: leave out split_by, or the level")


def count(
    split: str, side: int = 4, least_empty: int | None = None, most_empty: int | None = None, unique: bool = True,
    level: str | None = None, split_by: str | None = None, size: int = 500, seed: int = 0,
) -> int:  # fmt: skip
    """How many problems there are: as many as were asked for."""
    return size


def glance(split: str, side: int = 4, size: int = 500, **options: Any) -> Glance:
    """As many as were asked for, each a grid."""
    length = 2 * side**2 - 1
    return Glance(size, None, length, length, side**2)


def columns(split: str, level: str | None = None, **options: Any) -> frozenset[str]:
    """The names of its problems' `columns`."""
    return frozenset({"puzzle"} if level is None else {"puzzle", "backtracks"})


def grids(split: str, side: int = 4, **options: Any) -> Grids:
    """Each of them has an empty cell, and in its answer every digit. Raises `TaskError`."""
    check(split, side, **options)
    apart = options.get("level") is not None or options.get("split_by") == "symmetry"
    return Grids("sudoku", side, "_123456789"[: side + 1], apart)


def puzzles(side: int, low: int, high: int, unique: bool, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """(cells, solution) without end; each has `low` to `high` empty cells, and if `unique` no other solution."""
    from tasks.puzzles.solver import dug

    for number in numbers():
        generator = random.Random(seed64("sudoku", side, low, high, unique, seed, number))
        solution = full_grid(side, generator)
        wanted = generator.randint(low, high)
        places = list(range(side * side))
        generator.shuffle(places)
        if unique:
            cells = dug(solution, solution, places, side, wanted)
        else:
            cells = list(solution)
            for place in places[:wanted]:
                cells[place] = 0
        if cells.count(0) == wanted:
            yield cells, solution


def split_of(cells: Sequence[int], solution: Sequence[int], side: int, unique: bool) -> str:
    """The split that has a puzzle and all its symmetric copies; of side 9, all puzzles of that solution too.

    Sides 4 and 6 have no more than 2 and 49 solutions that are no copies of each other: too few to part.
    """
    form = _form(solution if side == 9 and unique else cells, side)
    return split_at(uniform("sudoku symmetry", form), SPLITS)


def written(cells: Sequence[int], side: int) -> str:
    """A grid as text: a line for each row, cells apart by spaces, `_` for an empty one."""
    rows = (cells[start : start + side] for start in range(0, side * side, side))
    return "\n".join(" ".join(str(value or "_") for value in row) for row in rows)


def _range(side: int, least: int | None, most: int | None) -> tuple[int, int]:
    low, high = EMPTY.get(side, (1, 1))
    return low if least is None else least, high if most is None else most


@lru_cache(8)
def _load(split: str, side: int, low: int, high: int, unique: bool, symmetric: bool, size: int, seed: int) -> Rows:
    found: dict[str, Problem] = {}
    repeated = 0
    for cells, solution in puzzles(side, low, high, unique, seed):
        clues = "".join(map(str, cells))
        where = split_of(cells, solution, side, unique) if symmetric else split_at(uniform("sudoku", clues), SPLITS)
        if where == split:
            form = _form(cells, side) if symmetric else clues
            repeated += form in found
            if repeated > 20 * size:
                raise TaskError(f"sudoku of side {side}, split {split}: {len(found)} puzzles found, {size} asked for")
            found.setdefault(form, _problem(cells, solution, side, f"{cells.count(0)} empty", clues))
        if len(found) == size:
            return Rows(list(found.values()), dropped=(("duplicate", repeated),) if repeated else ())
    raise AssertionError("puzzles() never ends")


@lru_cache(8)
def _of_level(split: str, side: int, level: str, size: int, seed: int) -> Rows:
    from tasks.puzzles.levels import levelled

    found: dict[str, Problem] = {}
    repeated, last = 0, 0
    for number in numbers():
        solution, looked_for = levelled(side, level, seed, number)
        # A climb takes a second: none is made whose puzzles would be of another split.
        if level == "extreme" and split_of(solution, solution, side, True) != split:
            continue
        for puzzle in looked_for:
            if split_of(puzzle.cells, solution, side, True) != split:
                continue
            form = _form(puzzle.cells, side)
            repeated += form in found
            if form not in found:
                grid = "".join(map(str, solution))
                found[form] = _problem(puzzle.cells, solution, side, level, grid, backtracks=puzzle.backtracks)
                last = number
            if len(found) == size:
                return Rows(list(found.values()), dropped=(("duplicate", repeated),) if repeated else ())
        if number - last > FRUITLESS:
            break
    raise TaskError(
        f"sudoku of side {side}, level {level}, split {split}: {len(found)} puzzles found, then none in {FRUITLESS:,} "
        f"grids; {size} asked for: make size smaller"
    )


def _form(cells: Sequence[int], side: int) -> str:
    from tasks.puzzles.symmetry import canonical

    return canonical(cells, side)


def _problem(
    cells: Sequence[int], solution: Sequence[int], side: int, kind: str, cluster: str, **more: float
) -> Problem:
    clues = "".join(map(str, cells))
    columns = {"puzzle": clues, **more}
    return Problem(clues, written(cells, side), written(solution, side), cluster=cluster, kind=kind, columns=columns)
