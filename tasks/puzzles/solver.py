"""A sudoku solver for sides 4, 6 and 9, compiled: singles, locked candidates, then a guess at the smallest cell.

Cells are whole numbers in reading order, 0 for an empty one. Inside, the values that a cell may have are bits of a
mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.puzzles.compiled import compiled
from tasks.puzzles.grid import LEVELS, peers, units

Ints: TypeAlias = NDArray[np.int64]
State: TypeAlias = NDArray[np.uint64]
Cells: TypeAlias = Sequence[int] | NDArray[Any]
Tables: TypeAlias = tuple[Ints, Ints, Ints, Ints, Ints]

ORDERS = 10
"""Random orders of guessing over which backtracks are averaged."""
EXTREME = 10.0
"""Mean backtracks from which a puzzle is extreme."""
_WRONG, _STUCK, _SOLVED = -1, 0, 1
_SINGLES, _LOCKED, _GUESS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Grade:
    """How hard a puzzle is to this solver.

    `level`: `easy` where singles suffice, `medium` where locked candidates do, `hard` where it takes guesses, `extreme`
    where `EXTREME` of them or more are wrong on average. `backtracks` is that mean, over `ORDERS` random orders. Locked
    candidates lower it: it is not the rating that another solver gives.
    """

    level: str
    backtracks: float


def solve(cells: Cells, side: int, limit: int = 2) -> Ints:
    """At most `limit` solutions, (n, side²); none where the clues contradict each other."""
    found = np.zeros((limit, side * side), np.int64)
    count, _ = _search(_masks(cells, side), _tables(side), side, np.uint64(0), found)
    return found[:count]


def dug(cells: Cells, solution: Cells, order: Sequence[int], side: int, most: int | None = None) -> list[int]:
    """A puzzle whose one solution is `solution`, with `most` empty cells, or as many as there can be.

    Clues of the solution are added to `cells`, which has no others, while it leaves another solution. Then cells are
    emptied in `order`, which names each of them once, where that leaves one solution: without `most`, any clue less
    would leave several.
    """
    made = np.array(cells, np.int64)
    wanted = side * side if most is None else most
    _dig(made, np.asarray(solution, np.int64), np.asarray(order, np.int64), _tables(side), side, wanted)
    filled: list[int] = made.tolist()
    return filled


def grade(cells: Cells, side: int) -> Grade:
    """How hard a puzzle that has a solution is: the same number for the same cells, everywhere."""
    technique, total = _grade(_masks(cells, side), _tables(side), side, ORDERS)
    backtracks = total / ORDERS
    return Grade(LEVELS[3 if backtracks >= EXTREME else technique], backtracks)


def _masks(cells: Cells, side: int) -> Ints:
    values = np.asarray(cells, np.int64)
    return np.where(values > 0, 1 << np.maximum(values - 1, 0), (1 << side) - 1)


@cache
def _tables(side: int) -> Tables:
    """Peers of each cell; cells of each unit; of each crossing of a line and a box, the cells of both, of the box
    alone and of the line alone, with −1 at the end of shorter rows."""
    members: list[list[int]] = [[] for _ in range(3 * side)]
    for cell, numbers in enumerate(units(side)):
        for number in numbers:
            members[number].append(cell)
    crossings = [
        ([c for c in line if c in box], [c for c in box if c not in line], [c for c in line if c not in box])
        for line in members[: 2 * side]
        for box in members[2 * side :]
        if set(line) & set(box)
    ]
    both, box, line = (
        np.array([part + [-1] * (side - len(part)) for part in column]) for column in zip(*crossings, strict=True)
    )
    return np.array(peers(side)), np.array(members), both, box, line


@compiled
def _random(state: State) -> np.int64:
    """The next number of splitmix64 (Steele, Lea and Flood 2014), its upper 31 bits."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    mixed = state[0]
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(33))


@compiled
def _singles(options: Ints, placed: Ints, peers: Ints, units: Ints, full: int) -> int:
    """Fills cells that have one value left, and values that have one cell left in a unit, until there are none."""
    size = options.shape[0]
    changed = True
    while changed:
        changed = False
        for cell in range(size):
            value = options[cell]
            if placed[cell] or value & (value - 1):
                continue
            if not value:
                return _WRONG
            placed[cell] = 1
            changed = True
            for number in range(peers.shape[1]):
                other = peers[cell, number]
                options[other] &= ~value
                if not options[other]:
                    return _WRONG
        if changed:
            continue
        for unit in range(units.shape[0]):
            once, twice = 0, 0
            for number in range(units.shape[1]):
                value = options[units[unit, number]]
                twice |= once & value
                once |= value
            if once != full:
                return _WRONG
            only = once & ~twice
            for number in range(units.shape[1]):
                cell = units[unit, number]
                value = options[cell] & only
                if value and value != options[cell]:
                    if value & (value - 1):
                        return _WRONG
                    options[cell] = value
                    changed = True
    return _SOLVED if placed.all() else _STUCK


@compiled
def _lock(options: Ints, both: Ints, box: Ints, line: Ints) -> bool:
    """Values that a box has only inside a line leave the rest of the line, and the other way round; whether any did."""
    changed = False
    for crossing in range(both.shape[0]):
        inside, in_box, in_line = 0, 0, 0
        for number in range(both.shape[1]):
            if both[crossing, number] >= 0:
                inside |= options[both[crossing, number]]
            if box[crossing, number] >= 0:
                in_box |= options[box[crossing, number]]
            if line[crossing, number] >= 0:
                in_line |= options[line[crossing, number]]
        from_line, from_box = inside & in_line & ~in_box, inside & in_box & ~in_line
        if from_line or from_box:
            changed = True
            for number in range(both.shape[1]):
                if line[crossing, number] >= 0:
                    options[line[crossing, number]] &= ~from_line
                if box[crossing, number] >= 0:
                    options[box[crossing, number]] &= ~from_box
    return changed


@compiled
def _reduce(options: Ints, placed: Ints, tables: Tables, full: int) -> int:
    """All that can be known without a guess: wrong, stuck or solved."""
    peers, units, both, box, line = tables
    while True:
        state = _singles(options, placed, peers, units, full)
        if state != _STUCK or not _lock(options, both, box, line):
            return state


@compiled
def _smallest(options: Ints, placed: Ints, random: State) -> int:
    """The open cell with the fewest values: the first one where `random` is 0, else one of them by chance."""
    best, fewest, ties = -1, 99, 0
    for cell in range(options.shape[0]):
        if placed[cell]:
            continue
        count, value = 0, options[cell]
        while value:
            value &= value - 1
            count += 1
        if count < fewest:
            best, fewest, ties = cell, count, 1
        elif count == fewest and random[0]:
            ties += 1
            if _random(random) % ties == 0:
                best = cell
    return best


@compiled
def _pick(values: int, random: State) -> int:
    """A bit of the mask: the lowest where `random` is 0, else one by chance."""
    if not random[0]:
        return values & -values
    picked, ties, rest = 0, 0, values
    while rest:
        bit = rest & -rest
        rest &= rest - 1
        ties += 1
        if _random(random) % ties == 0:
            picked = bit
    return picked


@compiled
def _search(masks: Ints, tables: Tables, side: int, seed: np.uint64, found: Ints) -> tuple[int, int]:
    """(solutions, backtracks) of a search depth first, up to `len(found)` solutions. A wrong guess is a backtrack.

    Guesses are by chance, or the first ones where the seed is 0.
    """
    size = masks.shape[0]
    full = (1 << side) - 1
    random = np.array([seed], np.uint64)
    options, placed = np.zeros((size + 1, size), np.int64), np.zeros((size + 1, size), np.int64)
    cells, rest = np.zeros(size + 1, np.int64), np.zeros(size + 1, np.int64)
    options[0] = masks
    solutions, backtracks, depth = 0, 0, 0
    state = _reduce(options[0], placed[0], tables, full)
    while True:
        if state == _STUCK:
            cells[depth] = _smallest(options[depth], placed[depth], random)
            rest[depth] = options[depth, cells[depth]]
        else:
            if state == _SOLVED:
                for cell in range(size):
                    value = options[depth, cell]
                    while value:
                        value >>= 1
                        found[solutions, cell] += 1
                solutions += 1
                if solutions == found.shape[0]:
                    return solutions, backtracks
            elif depth:
                backtracks += 1
            depth -= 1
            while depth >= 0 and not rest[depth]:
                depth -= 1
            if depth < 0:
                return solutions, backtracks
        value = _pick(rest[depth], random)
        rest[depth] &= ~value
        options[depth + 1], placed[depth + 1] = options[depth], placed[depth]
        options[depth + 1, cells[depth]] = value
        depth += 1
        state = _reduce(options[depth], placed[depth], tables, full)


@compiled
def _grade(masks: Ints, tables: Tables, side: int, orders: int) -> tuple[int, int]:
    """(technique, backtracks summed over the orders)."""
    options, placed = masks.copy(), np.zeros(masks.shape[0], np.int64)
    if _singles(options, placed, tables[0], tables[1], (1 << side) - 1) == _SOLVED:
        return _SINGLES, 0
    if _reduce(options, placed, tables, (1 << side) - 1) == _SOLVED:
        return _LOCKED, 0
    total = 0
    for order in range(orders):
        found = np.zeros((1, masks.shape[0]), np.int64)
        total += _search(masks, tables, side, np.uint64(order + 1), found)[1]
    return _GUESS, total


@compiled
def _dig(cells: Ints, solution: Ints, order: Ints, tables: Tables, side: int, most: int) -> None:
    size, full = cells.shape[0], (1 << side) - 1
    masks = np.zeros(size, np.int64)
    for cell in range(size):
        masks[cell] = 1 << (cells[cell] - 1) if cells[cell] else full
    while True:
        found = np.zeros((2, size), np.int64)
        count, _ = _search(masks, tables, side, np.uint64(0), found)
        if count < 2:
            break
        for cell in order:  # the first cell where another solution differs
            if found[0, cell] != solution[cell] or found[1, cell] != solution[cell]:
                cells[cell] = solution[cell]
                masks[cell] = 1 << (solution[cell] - 1)
                break
    empty = (cells == 0).sum()
    for cell in order:
        if empty == most:
            break
        if cells[cell]:
            # Another solution would have another value here.
            masks[cell] = full & ~(1 << (cells[cell] - 1))
            if _search(masks, tables, side, np.uint64(0), np.zeros((1, size), np.int64))[0]:
                masks[cell] = 1 << (cells[cell] - 1)
            else:
                masks[cell] = full
                cells[cell] = 0
                empty += 1
