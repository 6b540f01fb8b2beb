"""One problem at one cell of a stress grid, and a whole grid of problems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.stress import boards, images, texts
from eval.stress.grid import Cell, Grid
from tasks.problem import Problem, TaskError
from tasks.puzzles.grid import LEVELS
from tasks.whole import is_whole

MOST = {"text": texts.SAME_WITH_NUMBERS, "image": len(images.NOISE), "board": len(LEVELS)}
"""The highest severity of what can be stressed."""


@dataclass(frozen=True, slots=True)
class Stressed:
    """The same problems at each cell, in the same order; `dropped`: how many can not be stressed, by reason."""

    cells: Sequence[tuple[Cell, Sequence[Problem]]]
    dropped: Mapping[str, int]


def stress(
    problem: Problem, scope: float, severity: int, seed: int, *, folder: Path | None = None, of: str | None = None
) -> Problem:
    """The problem made harder, with the same answer. Scope 0 or severity 0 gives the problem itself.

    `of`: what is touched, `text` (`eval.stress.texts`), `image` (`images`, which writes to `folder`) or `board`
    (`boards`); unless given, the board of a maze or sudoku, else the image, else the text. The id stays, so that
    results are compared problem by problem. Raises `TaskError`.
    """
    what = of or _kind(problem)
    if what not in MOST:
        raise TaskError(f"stress: `of` is one of {', '.join(MOST)}, not {what!r}")
    if not is_whole(severity) or not 0 <= scope <= 1 or not 0 <= severity <= MOST[what]:
        raise TaskError(
            f"stress of {what}: scope is from 0 to 1, severity from 0 to {MOST[what]}, not {scope}, {severity}"
        )
    if Cell(scope, severity).clean:
        return problem
    if what == "text":
        if _kind(problem) == "board":
            raise TaskError(f"problem `{problem.id}`: sentences would break its board; stress its board")
        return texts.stress(problem, scope, severity, seed)
    if what == "image":
        if folder is None:
            raise TaskError("stress of images: name a folder for the new ones")
        return images.stress(problem, scope, severity, seed, folder)
    if _kind(problem) != "board":
        raise TaskError(f"problem `{problem.id}` has no board: neither a column `maze` nor `puzzle`")
    return boards.stress(problem, scope, severity, seed)


def stress_problems(
    problems: Sequence[Problem], grid: Grid, seed: int, folder: Path | None = None, of: str | None = None
) -> Stressed:
    """The problems at each cell of the grid. One that some cell refuses is in none, and counted.

    Raises `TaskError` for a severity that there is not, and where no problem is left.
    """
    cells = grid.cells()
    kept: list[list[Problem]] = []
    dropped: Counter[str] = Counter()
    refused: TaskError | None = None
    for problem in problems:
        try:
            kept.append([stress(problem, c.scope, c.severity, seed, folder=folder, of=of) for c in cells])
        except TaskError as error:
            refused = refused or error
            dropped[str(error).replace(f" `{problem.id}`", "")] += 1
    if not kept:
        raise refused or TaskError("stress: there is no problem")
    return Stressed([(cell, [row[place] for row in kept]) for place, cell in enumerate(cells)], dict(dropped))


def _kind(problem: Problem) -> str:
    if "maze" in problem.columns or "puzzle" in problem.columns:
        return "board"
    return "text" if problem.image is None else "image"
