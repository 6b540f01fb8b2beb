"""Sudoku puzzles of a level, looked for in one full grid after another.

Of easy, medium and hard puzzles a grid gives one at most, emptied as far as can be. Extreme ones are found by a climb:
of the hardest puzzles of a grid known so far, one loses some clues, gets others until it has one solution again, and is
emptied as far as can be. Puzzles of one climb are alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.draw import seed64
from tasks.puzzles.grid import full_grid
from tasks.puzzles.solver import dug, grade
from tasks.puzzles.symmetry import canonical

TRIES = 600
"""Puzzles that a climb looks at; half of the grids lead to an extreme one."""
POOL = 4
"""The hardest puzzles that a climb goes on from."""
LOST = 3
"""The most clues that a puzzle loses in a step."""
MOST_OF_A_GRID = 4
"""Extreme puzzles taken from one climb."""


@dataclass(frozen=True, slots=True)
class Found:
    """A puzzle with its solution, and the mean number of wrong guesses that it takes (`tasks.puzzles.solver.Grade`)."""

    cells: list[int]
    solution: list[int]
    backtracks: float


def levelled(side: int, level: str, seed: int, number: int) -> tuple[list[int], Iterator[Found]]:
    """Full grid `number` of a seed, and its puzzles of the level, which are looked for when asked for."""
    generator = random.Random(seed64("sudoku level", side, level, seed, number))
    solution = full_grid(side, generator)
    return solution, (_climb if level == "extreme" else _emptied)(solution, side, level, generator)


def _emptied(solution: list[int], side: int, level: str, generator: random.Random) -> Iterator[Found]:
    cells = dug(solution, solution, _order(side, generator), side)
    graded = grade(cells, side)
    if graded.level == level:
        yield Found(cells, solution, graded.backtracks)


def _climb(solution: list[int], side: int, level: str, generator: random.Random) -> Iterator[Found]:
    pool: list[tuple[float, list[int]]] = [(0.0, dug(solution, solution, _order(side, generator), side))]
    seen: set[str] = set()
    for _ in range(TRIES):
        cells = list(generator.choice(pool)[1])
        clues = [cell for cell, value in enumerate(cells) if value]
        for cell in generator.sample(clues, generator.randint(1, LOST)):
            cells[cell] = 0
        cells = dug(cells, solution, _order(side, generator), side)
        graded = grade(cells, side)
        pool = sorted([*pool, (graded.backtracks, cells)], key=lambda each: -each[0])[:POOL]
        if graded.level == level and (form := canonical(cells, side)) not in seen:
            seen.add(form)
            yield Found(cells, solution, graded.backtracks)
            if len(seen) == MOST_OF_A_GRID:
                return


def _order(side: int, generator: random.Random) -> list[int]:
    order = list(range(side * side))
    generator.shuffle(order)
    return order
