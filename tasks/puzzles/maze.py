"""Mazes of square cells: shortest paths, and mazes drawn by chance with one of them.

As text a maze has a line for each row: `#` a wall, `.` a free cell, `S` the start, `G` the goal, `o` the path.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.puzzles.compiled import compiled

WALL, FREE, START, GOAL, PATH = "#", ".", "S", "G", "o"


@dataclass(frozen=True, slots=True)
class Maze:
    """A maze as lines, the same with its path marked, and how many steps lead from start to goal."""

    lines: list[str]
    solved: list[str]
    steps: int


def paths(free: NDArray[np.bool_], start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shortest paths from a cell to all, going up, down, left and right.

    Args:
        free: (H, W), the cells that may be entered.
        start: the number of a cell in reading order.

    Returns:
        Steps to each cell (H·W,), −1 where none lead there; how many shortest paths lead there, 2 for all above.
    """
    return _paths(free, start)


def shortest(lines: Sequence[str], through: str) -> tuple[int, int]:
    """(steps, paths) from the one `S` to the one `G` of lines of equal length, over cells with a sign of `through`.

    Steps are −1 where there is no path; 2 stands for two shortest paths and more.
    """
    signs = np.array([list(line) for line in lines])
    start, goal = (int((signs == each).argmax()) for each in (START, GOAL))
    steps, ways = _paths(np.isin(signs, [*through, START, GOAL]), start)
    return int(steps[goal]), int(ways[goal])


def is_solved(marked: Sequence[str], lines: Sequence[str], steps: int) -> bool:
    """Whether `marked` is the maze `lines`, of lines of equal length, with one of its shortest paths marked.

    `steps`: how long these are.
    """
    if [line.replace(PATH, FREE) for line in marked] != list(lines):
        return False
    # A path over marked cells alone is as long as the shortest, and has all of them.
    return "".join(marked).count(PATH) == steps - 1 and shortest(marked, PATH)[0] == steps


def draw(side: int, density: float, least: int, generator: random.Random) -> Maze | None:
    """A maze with walls by chance, one shortest path, and `least` steps or more; None where its start allows none.

    `density`: the chance of a cell to be a wall. Of all goals that the start allows, each is as likely.
    """
    free = np.array([generator.random() >= density for _ in range(side * side)])
    open_ = np.flatnonzero(free)
    if not len(open_):
        return None
    start = int(generator.choice(open_))
    steps, ways = _paths(free.reshape(side, side), start)
    goals = np.flatnonzero((steps >= least) & (ways == 1))
    if not len(goals):
        return None
    goal = int(generator.choice(goals))
    signs = np.where(free, FREE, WALL)
    signs[[start, goal]] = START, GOAL
    solved = signs.copy()
    solved[_back(steps, goal, side)] = PATH
    return Maze(_lines(signs, side), _lines(solved, side), int(steps[goal]))


def _back(steps: NDArray[np.int64], goal: int, side: int) -> list[int]:
    """The cells between start and goal, where one shortest path leads there."""
    found: list[int] = []
    cell = goal
    while steps[cell] > 1:
        row, column = divmod(cell, side)
        near = ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1))
        inside = (r * side + c for r, c in near if 0 <= r < side and 0 <= c < side)
        cell = next(each for each in inside if steps[each] == steps[cell] - 1)
        found.append(cell)
    return found


def _lines(signs: NDArray[np.str_], side: int) -> list[str]:
    return ["".join(row) for row in signs.reshape(side, side)]


@compiled
def _paths(free: NDArray[np.bool_], start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    height, width = free.shape
    steps, ways = np.full(height * width, -1, np.int64), np.zeros(height * width, np.int64)
    queue = np.zeros(height * width, np.int64)
    queue[0], steps[start], ways[start] = start, 0, 1
    first, last = 0, 1
    while first < last:
        cell = queue[first]
        first += 1
        row, column = cell // width, cell % width
        for turn in range(4):
            down, right = row + (turn == 0) - (turn == 1), column + (turn == 2) - (turn == 3)
            if not (0 <= down < height and 0 <= right < width and free[down, right]):
                continue
            near = down * width + right
            if steps[near] < 0:
                steps[near] = steps[cell] + 1
                queue[last] = near
                last += 1
            if steps[near] == steps[cell] + 1:
                ways[near] = min(2, ways[near] + ways[cell])
    return steps, ways
