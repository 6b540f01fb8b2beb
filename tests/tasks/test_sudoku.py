"""Sudoku puzzles against brute force over all grids."""

from __future__ import annotations

from itertools import permutations, product

import pytest

from rewards.puzzles import sudoku, sudoku_cells
from tasks.problem import TaskError
from tasks.registry import load
from tasks.sudoku import puzzles, solutions


def every_grid_of_side_4() -> list[tuple[int, ...]]:
    rows = list(permutations(range(1, 5)))
    found = []
    for grid in product(rows, repeat=4):
        columns = all(len({row[c] for row in grid}) == 4 for c in range(4))
        boxes = all(len({grid[r + i][c + j] for i in range(2) for j in range(2)}) == 4 for r in (0, 2) for c in (0, 2))
        if columns and boxes:
            found.append(tuple(value for row in grid for value in row))
    return found


def test_solver_finds_all_grids_and_all_solutions() -> None:
    grids = every_grid_of_side_4()
    assert len(grids) == 288
    assert sorted(map(tuple, solutions([0] * 16, 4, 1000))) == sorted(grids)
    clues = [1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 2, 0, 0]
    wanted = [grid for grid in grids if all(c in (0, g) for c, g in zip(clues, grid, strict=True))]
    assert sorted(map(tuple, solutions(clues, 4, 1000))) == sorted(wanted)
    assert solutions([1, 1, *[0] * 14], 4, 5) == []


@pytest.mark.parametrize(("side", "low", "high", "count"), [(4, 6, 12, 60), (6, 12, 20, 15), (9, 30, 45, 4)])
def test_each_puzzle_has_one_solution_and_the_empty_cells_asked_for(side: int, low: int, high: int, count: int) -> None:
    for _, (cells, solution) in zip(range(count), puzzles(side, low, high, True, 0), strict=False):
        assert low <= cells.count(0) <= high
        assert solutions(cells, side, 3) == [solution]


def test_puzzles_with_many_solutions_accept_each_of_them() -> None:
    rows = load("sudoku", "test", size=20, least_empty=13, most_empty=15, unique=False).problems
    assert all(13 <= problem.columns["puzzle"].count("0") <= 15 for problem in rows)
    for problem in rows:
        found = solutions([int(sign) for sign in problem.columns["puzzle"]], 4, 5)
        assert len(found) > 1
        answers = [" ".join(map(str, grid)) for grid in found] + [problem.answer]
        assert sudoku(answers, answers, puzzle=[problem.columns["puzzle"]] * len(answers)) == [1.0] * len(answers)


def test_splits_share_no_puzzle_whatever_their_seeds_and_the_gold_scores_one() -> None:
    train = load("sudoku", "train", size=300, seed=1, most_empty=8).problems
    test = load("sudoku", "test", size=60, seed=2, most_empty=8).problems
    validation = load("sudoku", "validation", size=60, seed=1, most_empty=8).problems
    sets = [{problem.id for problem in each} for each in (train, test, validation)]
    assert [len(each) for each in sets] == [300, 60, 60]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    columns = {"puzzle": [problem.columns["puzzle"] for problem in test]}
    gold = [problem.answer for problem in test]
    assert sudoku(gold, gold, **columns) == [1.0] * 60
    assert sudoku_cells(gold, gold, answer=gold, **columns) == [1.0] * 60
    assert load("sudoku", "test", size=60, seed=2, most_empty=8).problems == test


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": 5}, "side is one of 4, 6, 9"),
        ({"least_empty": 9, "most_empty": 8}, "least_empty ≤ most_empty"),
        ({"most_empty": 16}, "≤ 12"),
        ({"size": 0}, "size is a whole number"),
        ({"split": "dev"}, "no split 'dev'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        load("sudoku", **({"split": "train"} | options))  # type: ignore[arg-type]
