"""What leaves a puzzle the same but for its looks: other digits, places of lines and boxes, turns of a maze.

Sudoku of side 9: 9! · 3,359,232 symmetries; of side 6, whose boxes of 2 by 3 allow no transposition, 6! · 48 · 72; of
side 4, 4! · 128. A maze has the 8 of the square.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations, product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.puzzles.compiled import compiled
from tasks.puzzles.grid import box

Boards: TypeAlias = NDArray[Any]
"""(B, side²) whole numbers, a row for each board, its cells in reading order."""
DIHEDRAL = 8
INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
"""Of each turn, the one that takes it back."""


@cache
def placements(side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Orders of rows (R, side) and of columns (C, side) that keep the boxes, sorted."""
    shape = box(side)
    assert shape is not None
    return _orders(shape[0], side), _orders(shape[1], side)


def copies(
    inputs: Boards, labels: Boards, side: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A random symmetric copy of each sudoku and its solution: of all symmetries, each is as likely.

    Args:
        inputs: (B, side²) cells, 0 for an empty one.
        labels: (B, side²) cells of the solutions.
        rng: what to draw from; the same state gives the same copies.

    Returns:
        Copies of `inputs` and `labels`, each pair by a symmetry of its own.
    """
    rows, columns = placements(side)
    many = len(inputs)
    down = rows[rng.integers(len(rows), size=many)]
    across = columns[rng.integers(len(columns), size=many)]
    digits = np.zeros((many, side + 1), np.int64)
    digits[:, 1:] = rng.permuted(np.tile(np.arange(1, side + 1), (many, 1)), axis=1)
    from_row, from_column = np.repeat(down, side, axis=1), np.tile(across, (1, side))
    place = from_row * side + from_column
    if _square(side):
        turned = rng.integers(2, size=(many, 1)) == 1
        place = np.where(turned, from_column * side + from_row, place)
    copied = (np.take_along_axis(digits, np.take_along_axis(each, place, 1), 1) for each in (inputs, labels))
    return next(copied), next(copied)


def turned_copies(inputs: Boards, labels: Boards, side: int, rng: np.random.Generator) -> tuple[Boards, Boards]:
    """A copy of each maze and its solution, both (B, side²), by one of the 8 symmetries of the square by chance."""
    place = _turns(side)[rng.integers(DIHEDRAL, size=len(inputs))]
    return np.take_along_axis(inputs, place, 1), np.take_along_axis(labels, place, 1)


def turned(board: NDArray[Any], turn: int, side: int) -> NDArray[Any]:
    """A square of side² cells after one of the 8 symmetries; `INVERSE[turn]` takes it back."""
    place: NDArray[Any] = board[_turns(side)[turn]]
    return place


def canonical(cells: Sequence[int] | NDArray[Any], side: int) -> str:
    """The smallest text of all symmetric copies of a sudoku, digits renamed as they appear: equal for them alone."""
    rows, columns = placements(side)
    best = np.full(side * side, side + 1, np.int64)
    _canonical(np.asarray(cells, np.int64), rows, columns, _blocks(side), _square(side), best)
    return "".join(map(str, best.tolist()))


def canonical_maze(text: str, side: int) -> str:
    """The smallest text of the 8 turns of a square of side² ASCII signs: equal for them alone."""
    signs = np.frombuffer(text.encode("ascii"), np.uint8)
    smallest: bytes = min(turn.tobytes() for turn in signs[_turns(side)])
    return smallest.decode("ascii")


def _square(side: int) -> bool:
    shape = box(side)
    assert shape is not None
    return shape[0] == shape[1]


def _orders(height: int, side: int) -> NDArray[np.int64]:
    """The orders of `side` lines that lie in bands of `height`: bands in any order, in each of them the lines."""
    inside = list(permutations(range(height)))
    bands = permutations(range(side // height))
    orders = (
        [band * height + line for band, lines in zip(order, within, strict=True) for line in lines]
        for order in bands
        for within in product(inside, repeat=side // height)
    )
    return np.array(sorted(orders), np.int64)


@cache
def _turns(side: int) -> NDArray[np.int64]:
    """(8, side²): where each cell of a turned square comes from. In the order of HRM's `dataset/common.py`."""
    square = np.arange(side * side).reshape(side, side)
    quarters = [np.rot90(square, quarter) for quarter in range(4)]
    return np.stack(
        [each.ravel() for each in (*quarters, np.fliplr(square), np.flipud(square), square.T, np.fliplr(quarters[1]))]
    )


@cache
def _blocks(side: int) -> NDArray[np.int64]:
    """(side + 1,): how many orders of rows begin with the same k rows, for each k; it is one number for all of them."""
    rows, _ = placements(side)
    return np.array([len(rows) // len(np.unique(rows[:, :k], axis=0)) for k in range(side + 1)], np.int64)


@compiled
def _canonical(
    cells: NDArray[np.int64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    blocks: NDArray[np.int64],
    square: bool,
    best: NDArray[np.int64],
) -> None:
    """Writes the smallest text to `best`, whose cells are larger than any value.

    The sorted orders of rows are a tree: once an order is larger, all that begin alike are left. `names[d]` holds the
    new names of digits before row d, and last how many there are. The digits of a row differ, so which of two first
    rows is smaller depends on their empty cells alone: only the smallest are looked at.
    """
    side = rows.shape[1]
    names = np.zeros((side + 1, side + 2), np.int64)
    first = np.zeros((2, columns.shape[0], side), np.int64)
    smallest = 1 << side
    for transposed in range(2 if square else 1):
        for column in range(columns.shape[0]):
            for row in range(side):
                pattern = 0
                for place in range(side):
                    across = columns[column, place]
                    value = cells[across * side + row] if transposed else cells[row * side + across]
                    pattern = pattern << 1 | (value > 0)
                first[transposed, column, row] = pattern
                smallest = min(smallest, pattern)
    for transposed in range(2 if square else 1):
        for column in range(columns.shape[0]):
            for start in range(side):
                if first[transposed, column, start] > smallest:
                    continue
                order, last, equal = start * blocks[1], -1, 0
                while order < (start + 1) * blocks[1]:
                    depth = 0
                    while last >= 0 and depth < equal and rows[order, depth] == rows[last, depth]:
                        depth += 1
                    larger = False
                    while depth < side and not larger:
                        before, after = names[depth], names[depth + 1]
                        for value in range(side + 2):
                            after[value] = before[value]
                        smaller = False
                        for place in range(side):
                            row, across = rows[order, depth], columns[column, place]
                            value = cells[across * side + row] if transposed else cells[row * side + across]
                            if value:
                                if not after[value]:
                                    after[side + 1] += 1
                                    after[value] = after[side + 1]
                                value = after[value]
                            if smaller or value < best[depth * side + place]:
                                best[depth * side + place] = value
                                smaller = True
                            elif value > best[depth * side + place]:
                                larger = True
                                break
                        if smaller:
                            best[(depth + 1) * side :] = side + 1
                        depth += not larger
                    last, equal = order, depth
                    order += blocks[depth + 1] - order % blocks[depth + 1] if larger else 1
