"""What a maze is made of: how its path runs, how much leads astray, and the patches at both ends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from eval.composition.graph import Graph, Module
from tasks.problem import Problem

GRAPH = Graph(
    ("turn", "corridor", "dead_end", "start", "goal"),
    (
        Module("route", ("turn", "corridor", "dead_end")),
        Module("departure", ("start", "turn", "dead_end")),
        Module("arrival", ("goal", "turn", "corridor")),
    ),
)
"""The graph unless others are given: a choice of ours."""

_BANDS = {"turn": (0.31, 0.41), "corridor": (4, 5), "dead_end": (0.115, 0.165)}
"""Where `some` and `many` begin: turns for each step of the path, the longest run in steps, dead ends for each free
cell. About a third of the task's mazes of side 10 are in each."""
_STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))
_PATCHES = {"0000": "closed", "0001": "end", "0011": "bend", "0101": "straight", "0111": "fork", "1111": "crossing"}


def factors(problem: Problem) -> dict[str, str] | str:
    """The roots of `GRAPH` for a problem with a maze in its column `maze`, or why there are none.

    `turn`, `corridor` and `dead_end` are `few`, `some` or `many`. `start` and `goal` are the patches there, by which
    of the four neighbours are free, the same for all ways to turn or mirror it: `end`, `straight`, `bend`, `fork`,
    `crossing`.
    """
    text = problem.columns.get("maze")
    if not isinstance(text, str):
        return "no column `maze`"
    lines = text.split("\n")
    every = "".join(lines)
    if len({len(line) for line in lines}) != 1 or every.count("S") != 1 or every.count("G") != 1:
        return "no rectangle with one start and one goal"
    cells = route(lines)
    if not cells:
        return "not exactly one shortest path"
    moves = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(cells)]
    turns = sum(a != b for a, b in pairwise(moves))
    free = [(row, column) for row, line in enumerate(lines) for column, sign in enumerate(line) if sign != "#"]
    dead_ends = sum(patch(lines, *cell) == "end" for cell in free if cell not in (cells[0], cells[-1]))
    return {
        "turn": _band("turn", turns / len(moves)),
        "corridor": _band("corridor", max(len(list(run)) for _, run in groupby(moves))),
        "dead_end": _band("dead_end", dead_ends / len(free)),
        "start": patch(lines, *cells[0]),
        "goal": patch(lines, *cells[-1]),
    }


def route(lines: Sequence[str]) -> list[tuple[int, int]]:
    """(row, column) of the cells on the one shortest path, start and goal among them; none where there is no such."""
    import numpy as np

    from tasks.puzzles.maze import FREE, GOAL, START, WALL, paths, shortest

    if shortest(lines, FREE)[1] != 1:
        return []
    signs = np.array([list(line) for line in lines])
    ends = [int((signs == each).argmax()) for each in (START, GOAL)]
    (there, _), (back, _) = (paths(signs != WALL, end) for end in ends)
    on = np.flatnonzero((there >= 0) & (there + back == there[ends[1]]))
    width = signs.shape[1]
    return [divmod(int(cell), width) for cell in on[np.argsort(there[on])]]


def patch(lines: Sequence[str], row: int, column: int) -> str:
    """What the neighbours of a cell make of it: one of `closed`, `end`, `straight`, `bend`, `fork`, `crossing`."""
    near = [(row + down, column + right) for down, right in _STEPS]
    free = "".join(str(int(0 <= r < len(lines) and 0 <= c < len(lines[r]) and lines[r][c] != "#")) for r, c in near)
    return _PATCHES[min(free[turn:] + free[:turn] for turn in range(4))]


def _band(name: str, value: float) -> str:
    some, many = _BANDS[name]
    return "many" if value >= many else "some" if value >= some else "few"
