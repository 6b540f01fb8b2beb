"""Mazes and sudokus made harder, solved anew: what is asked for stays the same."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from math import isqrt

from rewards.puzzles import digits
from tasks.draw import seed64
from tasks.problem import Problem, TaskError
from tasks.puzzles.grid import LEVELS, box
from tasks.sudoku import written

_STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))


def stress(problem: Problem, scope: float, severity: int, seed: int) -> Problem:
    """A maze (column `maze`) or a sudoku (column `puzzle`) with more to go wrong and the same solution.

    Maze: walls open, in false ways of up to 2^(severity − 1) cells each; the one shortest path stays, and no other gets
    as short. Sudoku: clues go, while there is one solution and the puzzle is no harder than `LEVELS[severity − 1]`.
    `scope` is the share of the cells that could be changed so which are; a smaller scope changes some of the same.
    Where the answer repeats the maze, its walls change with it. Raises `TaskError` where no cell can be changed.
    """
    if "maze" in problem.columns:
        return _maze(problem, scope, severity, seed)
    return _sudoku(problem, scope, severity, seed)


def _maze(problem: Problem, scope: float, severity: int, seed: int) -> Problem:
    from tasks.puzzles.maze import FREE, PATH, shortest

    text = str(problem.columns["maze"])
    if text not in problem.question:
        raise TaskError(f"problem `{problem.id}`: its question does not show the maze of its column `maze`")
    lines = text.split("\n")
    known = len({len(line) for line in lines}) == 1 and text.count("S") == text.count("G") == 1
    if not known or shortest(lines, FREE)[1] != 1:
        raise TaskError(f"problem `{problem.id}`: its maze has not exactly one shortest path")
    opened = _opened(lines, 2 ** (severity - 1), random.Random(seed64("stress maze", seed, severity, problem.id)))
    chosen = set(opened[: _share(scope, len(opened), problem)])

    def changed(grid: Sequence[str]) -> str:
        rows = ("".join(FREE if (r, c) in chosen else sign for c, sign in enumerate(row)) for r, row in enumerate(grid))
        return "\n".join(rows)

    harder = changed(lines)
    marked = problem.answer.replace(PATH, FREE) == text
    return replace(
        problem,
        question=problem.question.replace(text, harder),
        answer=changed(problem.answer.split("\n")) if marked else problem.answer,
        columns={**problem.columns, "maze": harder},
    )


def _opened(lines: Sequence[str], length: int, generator: random.Random) -> list[tuple[int, int]]:
    """Walls that can be opened one after the other, in ways of up to `length` cells that are no shorter."""
    import numpy as np

    from tasks.puzzles.maze import GOAL, START, WALL, paths

    signs = np.array([list(line) for line in lines])
    free = signs != WALL
    start, goal = (int((signs == each).argmax()) for each in (START, GOAL))
    found: dict[tuple[int, int], None] = {}

    def near(cell: tuple[int, int]) -> list[tuple[int, int]]:
        places = [(cell[0] + down, cell[1] + right) for down, right in _STEPS]
        return [(r, c) for r, c in places if 0 <= r < free.shape[0] and 0 <= c < free.shape[1]]

    def best() -> tuple[int, int]:
        steps, ways = paths(free, start)
        return int(steps[goal]), int(ways[goal])

    def opens(cell: tuple[int, int], last: tuple[int, int] | None) -> bool:
        # Ways stay apart, so that severity is their length, and begin at a cell that was free.
        if free[cell] or any(each in found and each != last for each in near(cell)):
            return False
        if last is None and not any(free[each] for each in near(cell)):
            return False
        free[cell] = True
        same = best() == wanted
        free[cell] = same
        return same

    wanted = best()
    walls = [(int(r), int(c)) for r, c in np.argwhere(~free)]
    generator.shuffle(walls)
    for wall in walls:
        last, ways = None, [wall]
        for _ in range(length):
            generator.shuffle(ways)
            step = next((cell for cell in ways if opens(cell, last)), None)
            if step is None:
                break
            found[step] = None
            last, ways = step, near(step)
    return list(found)


def _sudoku(problem: Problem, scope: float, severity: int, seed: int) -> Problem:
    from tasks.puzzles.solver import grade, solve

    cells = digits(str(problem.columns["puzzle"]))
    side = isqrt(len(cells))
    if side * side != len(cells) or box(side) is None or len(solve(cells, side)) != 1:
        raise TaskError(f"problem `{problem.id}`: its column `puzzle` is no sudoku with one solution")
    shown = written(cells, side)
    if shown not in problem.question:
        raise TaskError(f"problem `{problem.id}`: its question does not show the grid of its column `puzzle`")
    order = [cell for cell, value in enumerate(cells) if value]
    random.Random(seed64("stress sudoku", seed, problem.id)).shuffle(order)
    emptied = list(cells)
    found: list[int] = []
    for cell in order:
        value, emptied[cell] = emptied[cell], 0
        alone = len(solve(emptied, side)) == 1
        if alone and LEVELS.index(grade(emptied, side).level) < severity:
            found.append(cell)
        else:
            emptied[cell] = value
    chosen = set(found[: _share(scope, len(found), problem)])
    harder = [0 if cell in chosen else value for cell, value in enumerate(cells)]
    return replace(
        problem,
        question=problem.question.replace(shown, written(harder, side)),
        columns={**problem.columns, "puzzle": "".join(map(str, harder))},
    )


def _share(scope: float, number: int, problem: Problem) -> int:
    if not number:
        raise TaskError(f"problem `{problem.id}`: no cell can be changed at this severity with the same solution left")
    return max(1, round(scope * number))
