"""The compiled solver against exact covers and against techniques on sets; levels mean what they say."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tasks.puzzles import levels
from tasks.puzzles.grid import full_grid
from tasks.puzzles.solver import dug, grade, solve
from tasks.sudoku import puzzles
from tests.tasks import slow_sudoku


@pytest.mark.parametrize(("side", "clues", "count"), [(4, 5, 60), (6, 10, 40), (9, 27, 12)])
def test_finds_the_solutions_that_exact_covers_find(side: int, clues: int, count: int) -> None:
    """Of boards with one solution, many, and (a clue changed) often none."""
    generator = random.Random(side)
    numbers = Counter()  # type: Counter[str]
    for number in range(count):
        grid = full_grid(side, generator)
        cells = [0] * len(grid)
        for place in generator.sample(range(len(grid)), clues + number % 4):
            cells[place] = grid[place]
        if number % 3 == 0:
            place = generator.choice([place for place, value in enumerate(cells) if value])
            cells[place] = cells[place] % side + 1
        if number % 3 == 1:
            cells = dug(cells, grid, generator.sample(range(len(grid)), len(grid)), side)
        wanted = []
        for found in slow_sudoku.solutions(cells, side):
            wanted.append(found)
            if len(wanted) == 300:
                break
        if len(wanted) < 300:
            assert sorted(solve(cells, side, 1000).tolist()) == sorted(wanted)
        numbers["none" if not wanted else "one" if len(wanted) == 1 else "many"] += 1
    assert set(numbers) == {"none", "one", "many"}, numbers


@pytest.mark.parametrize(("side", "low", "high", "count"), [(4, 6, 12, 60), (6, 12, 20, 30), (9, 30, 52, 12)])
def test_each_puzzle_has_one_solution_and_the_empty_cells_asked_for(side: int, low: int, high: int, count: int) -> None:
    for _, (cells, solution) in zip(range(count), puzzles(side, low, high, True, 0), strict=False):
        assert low <= cells.count(0) <= high
        assert list(slow_sudoku.solutions(cells, side)) == [solution]


def test_no_clue_of_a_dug_puzzle_can_go_and_refilled_ones_keep_their_clues_solution() -> None:
    generator = random.Random(1)
    for start in ("full", "nothing"):
        grid = full_grid(6, generator)
        order = generator.sample(range(36), 36)
        cells = dug(grid if start == "full" else [0] * 36, grid, order, 6)
        assert list(slow_sudoku.solutions(cells, 6)) == [grid]
        for place in range(36):
            if cells[place]:
                fewer = [0 if each == place else value for each, value in enumerate(cells)]
                assert len(list(slow_sudoku.solutions(fewer, 6))) > 1


@pytest.mark.parametrize("side", [6, 9])
def test_levels_need_the_techniques_that_they_name(side: int) -> None:
    generator = random.Random(2)
    seen = set()
    for _ in range(400 if side == 6 else 60):
        grid = full_grid(side, generator)
        cells = dug(grid, grid, generator.sample(range(side * side), side * side), side)
        found = grade(cells, side)
        assert grade(cells, side) == found
        assert (found.backtracks > 0) == (found.level in ("hard", "extreme"))
        assert (found.backtracks >= 10) == (found.level == "extreme")
        if side == 9 or found.level != "easy":
            singles, locked = (slow_sudoku.known_without_a_guess(cells, side, each) for each in (False, True))
            named = "easy" if singles == side**2 else "medium" if locked == side**2 else "hard"
            assert named == found.level
        seen.add(found.level)
    assert seen == {"easy", "medium", "hard"}


def test_a_climb_keeps_its_solution_and_gives_different_extreme_puzzles() -> None:
    for number in range(20):
        solution, looked_for = levels.levelled(9, "extreme", 0, number)
        if found := [puzzle for _, puzzle in zip(range(3), looked_for, strict=False)]:
            break
    assert len({tuple(each.cells) for each in found}) == len(found) > 0
    for each in found:
        assert each.solution == solution and list(slow_sudoku.solutions(each.cells, 9)) == [solution]
        assert each.backtracks >= 10 and grade(each.cells, 9).backtracks == each.backtracks
