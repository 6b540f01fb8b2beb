"""The grids of sudoku: sides, boxes, and which cells share a row, a column or a box."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

SIDES = (4, 6, 9)
LEVELS = ("easy", "medium", "hard", "extreme")
"""How hard a puzzle is: `tasks.puzzles.solver.Grade` says what they mean."""


@dataclass(frozen=True, slots=True)
class Grids:
    """What all grids of some data have in common, as it is known before they are loaded.

    `side` is None where it is not known; `signs` are characters that occur in each of them, in question or answer;
    `apart` says that no split has a symmetric copy of another's.
    """

    puzzle: Literal["sudoku", "maze"]
    side: int | None
    signs: str
    apart: bool | None = None


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


def full_grid(side: int, generator: random.Random) -> list[int]:
    """A grid filled by chance. The same generator gives the same grid on every machine, and in every version."""
    filled = _filled([(1 << side) - 1] * (side * side), [0] * (side * side), side, generator)
    assert filled is not None
    return filled


def _filled(options: list[int], filled: list[int], side: int, generator: random.Random) -> list[int] | None:
    """Depth first, always at the empty cell with the fewest values left."""
    empty = [cell for cell, value in enumerate(filled) if not value]
    if not empty:
        return filled
    cell = min(empty, key=lambda each: options[each].bit_count())
    values = [value for value in range(1, side + 1) if options[cell] >> (value - 1) & 1]
    generator.shuffle(values)
    for value in values:
        deeper, with_it = list(options), list(filled)
        with_it[cell] = value
        for other in peers(side)[cell]:
            deeper[other] &= ~(1 << (value - 1))
        if found := _filled(deeper, with_it, side, generator):
            return found
    return None
