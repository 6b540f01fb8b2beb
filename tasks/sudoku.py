"""Sudoku puzzles made by a seed: 4 by 4, 6 by 6 (boxes of 2 by 3) or 9 by 9, with one solution or with any number.

A puzzle is of the split that a hash of its clues says, so splits have none in common, whatever their sizes and seeds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import count as numbers
from typing import Any

from tasks.draw import seed64, uniform
from tasks.problem import Problem, Rows, TaskError

UNITS = "problems"
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""The share of all puzzles that are of a split."""
SIDES = (4, 6, 9)
EMPTY = {4: (6, 10), 6: (12, 20), 9: (30, 48)}
"""The fewest and most empty cells, where none are asked for."""


def load(
    split: str, side: int = 4, least_empty: int | None = None, most_empty: int | None = None, unique: bool = True,
    size: int = 500, seed: int = 0,
) -> Rows:  # fmt: skip
    """`size` different puzzles. The question is the grid, `_` for an empty cell, the answer the same grid filled in.

    `unique: false` leaves any cells empty, so that a puzzle may have many solutions, of which the answer is one.
    `columns` have what the rewards `sudoku` and `sudoku_cells` need. Raises `TaskError`.
    """
    check(split, side, least_empty, most_empty, unique, size, seed)
    return _load(split, side, *_range(side, least_empty, most_empty), unique, size, seed)


def check(
    split: str, side: int = 4, least_empty: int | None = None, most_empty: int | None = None, unique: bool = True,
    size: int = 500, seed: int = 0,
) -> str | None:  # fmt: skip
    """Raises `TaskError` for an unknown split or a value that cannot be."""
    if split not in SPLITS:
        raise TaskError(f"sudoku has no split {split!r}; it has {', '.join(SPLITS)}")
    if side not in SIDES:
        raise TaskError(f"sudoku: side is one of {', '.join(map(str, SIDES))}, not {side!r}")
    for name, value, least in (("size", size, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise TaskError(f"sudoku: {name} is a whole number of {least} or more, not {value!r}")
    low, high = _range(side, least_empty, most_empty)
    # Beyond, hardly any grid still has one solution.
    most = EMPTY[side][1] + (2 if side == 4 else 4) if unique else side * side - 1
    if not 1 <= low <= high <= most:
        raise TaskError(f"sudoku of side {side}: 1 ≤ least_empty ≤ most_empty ≤ {most}, not {low!r} and {high!r}")
    return None


def count(
    split: str, side: int = 4, least_empty: int | None = None, most_empty: int | None = None, unique: bool = True,
    size: int = 500, seed: int = 0,
) -> int:  # fmt: skip
    """How many problems there are: as many as were asked for."""
    return size


def columns(split: str, **options: Any) -> frozenset[str]:
    """The names of its problems' `columns`."""
    return frozenset({"puzzle"})


def box(side: int) -> tuple[int, int] | None:
    """(rows, columns) of a box; None for a side that has none."""
    return {4: (2, 2), 6: (2, 3), 9: (3, 3)}.get(side)


@cache
def units(side: int) -> Sequence[tuple[int, int, int]]:
    """For each cell, in reading order, the numbers of its row, its column and its box, out of 3 · side."""
    shape = box(side)
    assert shape is not None
    high, wide = shape
    return [
        (cell // side, side + cell % side, 2 * side + cell // side // high * (side // wide) + cell % side // wide)
        for cell in range(side * side)
    ]


@cache
def peers(side: int) -> Sequence[Sequence[int]]:
    """For each cell, in reading order, the cells that share a row, a column or a box with it."""
    of = units(side)
    return [
        [other for other in range(side * side) if other != cell and any(map(int.__eq__, of[cell], of[other]))]
        for cell in range(side * side)
    ]


def solutions(cells: Sequence[int], side: int, limit: int, order: random.Random | None = None) -> list[list[int]]:
    """At most `limit` ways to fill the 0s of a grid; `order` tries values by chance. [] where the clues contradict."""
    every = (1 << side) - 1
    options = [every] * (side * side)
    filled = [0] * (side * side)
    for cell, value in enumerate(cells):
        if value:
            if not options[cell] >> (value - 1) & 1:
                return []
            _put(options, filled, cell, value, side)
    found: list[list[int]] = []
    _search(options, filled, side, limit, order, found)
    return found


def _put(options: list[int], filled: list[int], cell: int, value: int, side: int) -> None:
    filled[cell] = value
    for other in peers(side)[cell]:
        options[other] &= ~(1 << (value - 1))


def _search(
    options: list[int], filled: list[int], side: int, limit: int, order: random.Random | None, found: list[list[int]]
) -> None:
    """Depth first, always at the empty cell with the fewest values left."""
    empty = [cell for cell, value in enumerate(filled) if not value]
    if not empty:
        found.append(list(filled))
        return
    cell = min(empty, key=lambda each: options[each].bit_count())
    values = [value for value in range(1, side + 1) if options[cell] >> (value - 1) & 1]
    if order is not None:
        order.shuffle(values)
    for value in values:
        deeper, with_it = list(options), list(filled)
        _put(deeper, with_it, cell, value, side)
        _search(deeper, with_it, side, limit, order, found)
        if len(found) >= limit:
            return


def puzzles(side: int, low: int, high: int, unique: bool, seed: int) -> Iterator[tuple[list[int], list[int]]]:
    """(cells, solution) without end; each has `low` to `high` empty cells, and if `unique` no other solution."""
    for number in numbers():
        generator = random.Random(seed64("sudoku", side, low, high, unique, seed, number))
        solution = solutions([0] * (side * side), side, 1, generator)[0]
        wanted = generator.randint(low, high)
        cells, places = list(solution), list(range(side * side))
        generator.shuffle(places)
        for place in places:
            if cells.count(0) == wanted:
                break
            kept, cells[place] = cells[place], 0
            if unique and len(solutions(cells, side, 2)) > 1:
                cells[place] = kept
        if cells.count(0) == wanted:
            yield cells, solution


def written(cells: Sequence[int], side: int) -> str:
    """A grid as text: a line for each row, cells apart by spaces, `_` for an empty one."""
    rows = (cells[start : start + side] for start in range(0, side * side, side))
    return "\n".join(" ".join(str(value or "_") for value in row) for row in rows)


def _range(side: int, least: int | None, most: int | None) -> tuple[int, int]:
    low, high = EMPTY.get(side, (1, 1))
    return low if least is None else least, high if most is None else most


@lru_cache(8)
def _load(split: str, side: int, low: int, high: int, unique: bool, size: int, seed: int) -> Rows:
    start = sum(SPLITS[each] for each in list(SPLITS)[: list(SPLITS).index(split)])
    found: dict[str, Problem] = {}
    repeated = 0
    for cells, solution in puzzles(side, low, high, unique, seed):
        clues = "".join(map(str, cells))
        if start <= uniform("sudoku", clues) < start + SPLITS[split]:
            repeated += clues in found
            if repeated > 20 * size:
                raise TaskError(f"sudoku of side {side}, split {split}: {len(found)} puzzles found, {size} asked for")
            found[clues] = Problem(
                clues, written(cells, side), written(solution, side), cluster=clues,
                kind=f"{cells.count(0)} empty", columns={"puzzle": clues},
            )  # fmt: skip
        if len(found) == size:
            return Rows(list(found.values()), dropped=(("duplicate", repeated),) if repeated else ())
    raise AssertionError("puzzles() never ends")
