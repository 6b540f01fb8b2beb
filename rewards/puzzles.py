"""Rewards of puzzles whose answers are checked against their rules, countdown, sudoku, mazes; and of grids alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import isqrt
from typing import Any

from rewards.answer import final_answer
from rewards.arithmetic import NoExpression, evaluate
from rewards.contract import INVALID, note
from rewards.text import Completion, text_of
from tasks.puzzles.grid import box, units

_MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
_MOVE_WORDS = re.compile(r"\b(?:up|down|left|right)\b", re.IGNORECASE)
MOST_MOVES = 10_000
_FRAMES = str.maketrans({"[": " ", ",": " ", "|": " ", "]": "\n"})


def countdown(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    numbers: Sequence[Sequence[int]],
    target: Sequence[int],
    **columns: Any,
) -> list[float | None]:
    """1 where the answer is an expression of exactly the given numbers, each used once, with the target's value."""
    return [
        _countdown(row, text_of(completion), given, wanted)
        for row, (completion, given, wanted) in enumerate(zip(completions, numbers, target, strict=True))
    ]


def sudoku(
    prompts: Sequence[Any], completions: Sequence[Completion], *, puzzle: Sequence[str], **columns: Any
) -> list[float | None]:
    """1 where the answer is a whole grid that keeps the clues and the rules, else 0. Any solution counts.

    `puzzle`: the cells in reading order, 0, `.` or `_` for an empty one; other characters are white space and frames.
    """
    return [
        None if (clues := _clues(row, given)) is None else float(_solves(row, text_of(completion), clues))
        for row, (completion, given) in enumerate(zip(completions, puzzle, strict=True))
    ]


def sudoku_cells(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    puzzle: Sequence[str],
    answer: Sequence[str],
    **columns: Any,
) -> list[float | None]:
    """The share of the empty cells that are filled as in the solution `answer`.

    An answer that is too short lacks its last cells; one that is too long is no grid and scores 0.
    """
    scores: list[float | None] = []
    for row, (completion, given, gold) in enumerate(zip(completions, puzzle, answer, strict=True)):
        clues = _clues(row, given)
        solution = digits(gold)
        if clues is None or len(solution) != len(clues) or all(clues):
            note(row, "no gold")
            scores.append(None)
            continue
        found = _filled(text_of(completion), len(clues))
        if not 0 < len(found) <= len(clues):
            note(row, "unparsed")
            found = []
        empty = [place for place, clue in enumerate(clues) if not clue]
        right = sum(place < len(found) and found[place] == solution[place] for place in empty)
        scores.append(right / len(empty))
    return scores


def maze_path(
    prompts: Sequence[Any], completions: Sequence[Completion], *, maze: Sequence[str], **columns: Any
) -> list[float | None]:
    """1 where the answer's moves lead from S to G through no wall, else 0.

    `maze`: lines of equal length, `#` for a wall, one `S`, one `G`. Moves are letters `UDLR` or the words up, down,
    left, right; a path that walks on past G does not count.
    """
    return [
        _walks(row, text_of(completion), lines)
        for row, (completion, lines) in enumerate(zip(completions, maze, strict=True))
    ]


def maze_grid(
    prompts: Sequence[Any], completions: Sequence[Completion], *, maze: Sequence[str], **columns: Any
) -> list[float | None]:
    """1 where the answer is the maze with the cells of a shortest path from S to G marked `o`, else 0.

    `maze`: as for `maze_path`, free cells written `.`. Any shortest path counts. White space inside a line is left out.
    """
    return [
        _marks(row, text_of(completion), lines)
        for row, (completion, lines) in enumerate(zip(completions, maze, strict=True))
    ]


def grid(
    prompts: Sequence[Any], completions: Sequence[Completion], *, answer: Sequence[str], **columns: Any
) -> list[float | None]:
    """1 where the answer is the gold grid, cell by cell and of the same shape, else 0.

    Cells are single digits. A row is a line, or what a pair of brackets holds; blanks, commas, bars and lines that
    begin with ``` are left out.
    """
    scores: list[float | None] = []
    for row, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        wanted, found = _rows(gold), _rows(final_answer(text_of(completion)) or "")
        if wanted is None or found is None:
            note(row, "no gold" if wanted is None else "unparsed")
        scores.append(None if wanted is None else float(found == wanted))
    return scores


def digits(text: str) -> list[int]:
    """The cells of a grid in reading order; frames and white space go, 0 for `.`, `_` and 0."""
    return [0 if sign in "._" else int(sign) for sign in text if sign in "._" or ("0" <= sign <= "9")]


def _countdown(row: int, text: str, given: Sequence[int], wanted: int) -> float:
    answer = final_answer(text)
    try:
        value, used = evaluate(answer or "")
    except NoExpression:
        note(row, "unparsed")
        return 0.0
    if Counter(used) != Counter(map(int, given)):
        note(row, INVALID)
        return 0.0
    return float(value == wanted)


def _clues(row: int, given: str) -> list[int] | None:
    """The cells of a puzzle; None, noted, where its side is none of 4, 6 and 9."""
    cells = digits(given)
    side = isqrt(len(cells))
    if side * side != len(cells) or box(side) is None:
        note(row, "no gold")
        return None
    return cells


def _filled(text: str, cells: int) -> list[int]:
    """The cells of an answer's grid. A full stop after the last of `cells` ends the sentence, and is no empty cell."""
    answer = final_answer(text) or ""
    found = digits(answer)
    return found[:-1] if len(found) == cells + 1 and answer.endswith(".") else found


def _solves(row: int, text: str, clues: Sequence[int]) -> bool:
    cells = _filled(text, len(clues))
    if len(cells) != len(clues):
        note(row, "unparsed")
        return False
    if any(clue not in (0, cell) for clue, cell in zip(clues, cells, strict=True)):
        note(row, INVALID)
        return False
    side = isqrt(len(clues))
    wanted = set(range(1, side + 1))
    values: list[set[int]] = [set() for _ in range(3 * side)]
    for value, numbers in zip(cells, units(side), strict=True):
        for number in numbers:
            values[number].add(value)
    return all(each == wanted for each in values)


def _walks(row: int, text: str, maze: str) -> float | None:
    grid = maze.strip("\n").split("\n")
    ends = {sign: (r, c) for r, line in enumerate(grid) for c, sign in enumerate(line) if sign in "SG"}
    if set(ends) != {"S", "G"}:
        note(row, "no gold")
        return None
    answer = final_answer(text) or ""
    words = _MOVE_WORDS.findall(answer)
    moves = [word[0].upper() for word in words] if words else re.sub(r"[\s,;>\-→]", "", answer).removesuffix(".")
    if not moves or len(moves) > MOST_MOVES or any(move not in _MOVES for move in moves):
        note(row, "unparsed")
        return 0.0
    r, c = ends["S"]
    for move in moves:
        r, c = r + _MOVES[move][0], c + _MOVES[move][1]
        if not (0 <= r < len(grid) and 0 <= c < len(grid[r])) or grid[r][c] == "#":
            note(row, INVALID)
            return 0.0
    return float((r, c) == ends["G"])


def _marks(row: int, text: str, maze: str) -> float | None:
    from tasks.puzzles.maze import FREE, is_solved, shortest

    grid, marked = _lines(maze), _lines(final_answer(text) or "")
    every = "".join(grid)
    known = len({len(line) for line in grid}) == 1 and set(every) <= set("#.SG")
    steps = shortest(grid, FREE)[0] if known and every.count("S") == every.count("G") == 1 else -1
    if steps < 0:
        note(row, "no gold")
        return None
    if list(map(len, marked)) != list(map(len, grid)) or not set("".join(marked)) <= set("#.SGo"):
        note(row, "unparsed")
        return 0.0
    return float(is_solved(marked, grid, steps))


def _rows(text: str) -> list[str] | None:
    """The rows of a grid of digits; None where there are none, of unequal length, or with anything else in them."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("```"))
    cells = lines.translate(_FRAMES).splitlines()
    rows = [row for line in cells if (row := "".join(line.split()))]
    of_digits = all(row.isascii() and row.isdigit() for row in rows)
    return rows if of_digits and len({len(row) for row in rows}) == 1 else None


def _lines(text: str) -> list[str]:
    """The lines of a grid that are not empty, without white space."""
    return [line for each in text.splitlines() if (line := "".join(each.split()))]
