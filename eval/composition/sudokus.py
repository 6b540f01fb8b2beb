"""What a sudoku is made of: the technique that it takes, how full it is, and where it is thin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isqrt

from eval.composition.graph import Graph, Module
from rewards.puzzles import digits
from tasks.problem import Problem
from tasks.puzzles.grid import box, peers, units

GRAPH = Graph(
    ("technique", "empty", "digit", "box"),
    (
        Module("scan", ("technique", "digit")),
        Module("region", ("technique", "box")),
        Module("thin", ("digit", "box")),
        Module("amount", ("technique", "empty")),
    ),
)
"""The graph unless others are given: a choice of ours."""
_TECHNIQUES = {"easy": "hidden", "medium": "locked", "hard": "guess", "extreme": "guess"}
_BAND = 0.1


def factors(problem: Problem) -> dict[str, str] | str:
    """The roots of `GRAPH` for a problem with a grid in its column `puzzle`, or why there are none.

    `technique` is the least that the solver of `tasks.puzzles.solver` gets by with: `naked` singles (a cell has one
    value left), `hidden` ones (a value has one cell left), `locked` candidates, `guess`. `empty` is the share of empty
    cells, in tenths. `digit` and `box` are the value, and the box from 1, of which the fewest cells are filled; the
    first among equals.
    """
    cells = digits(str(problem.columns.get("puzzle", "")))
    side = isqrt(len(cells))
    if side * side != len(cells) or box(side) is None:
        return "no grid of side 4, 6 or 9 in a column `puzzle`"
    from tasks.puzzles.solver import solve

    if not len(solve(cells, side, 1)):
        return "no solution"
    filled = Counter(cells)
    boxes = Counter(unit[2] - 2 * side for unit, value in zip(units(side), cells, strict=True) if value)
    return {
        "technique": _technique(cells, side),
        "empty": f"{int(cells.count(0) / len(cells) / _BAND + 1e-9) * _BAND:.1f}",
        "digit": str(min(range(1, side + 1), key=lambda value: filled[value])),
        "box": str(1 + min(range(side), key=lambda number: boxes[number])),
    }


def _technique(cells: Sequence[int], side: int) -> str:
    from tasks.puzzles.solver import grade

    if _naked_suffices(cells, side):
        return "naked"
    return _TECHNIQUES[grade(cells, side).level]


def _naked_suffices(cells: Sequence[int], side: int) -> bool:
    filled = list(cells)
    while True:
        left = {
            cell: set(range(1, side + 1)) - {filled[other] for other in peers(side)[cell]}
            for cell, value in enumerate(filled)
            if not value
        }
        found = {cell: options.pop() for cell, options in left.items() if len(options) == 1}
        if not found:
            return not left
        for cell, value in found.items():
            filled[cell] = value
