"""Symmetries of puzzles: their numbers, copies that stay puzzles, forms that are equal for copies alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tasks.puzzles import symmetry
from tasks.puzzles.grid import full_grid
from tasks.puzzles.solver import dug, solve
from tests.tasks.slow_sudoku import houses


def drawn(side: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Different minimal puzzles and their solutions."""
    generator = random.Random(side)
    found = {}
    while len(found) < count:
        grid = full_grid(side, generator)
        found[tuple(dug(grid, grid, generator.sample(range(side * side), side * side), side))] = grid
    return np.array(list(found)), np.array(list(found.values()))


@pytest.mark.parametrize(("side", "places"), [(4, 128), (6, 48 * 72), (9, 3_359_232)])
def test_the_group_has_its_order_and_keeps_rows_columns_and_boxes(side: int, places: int) -> None:
    rows, columns = symmetry.placements(side)
    assert (
        len({tuple(order) for order in rows}) * len({tuple(order) for order in columns}) * (1 if side == 6 else 2)
        == places
    )
    generator = np.random.default_rng(0)
    for _ in range(50):
        down, across = generator.choice(rows), generator.choice(columns)
        for house in houses(side):
            assert {(int(down[r]), int(across[c])) for r, c in house} in houses(side)


def test_random_copies_of_a_small_grid_are_all_its_copies() -> None:
    """128 places and 24 digits: of each of two classes of grids, as many as there are, all about as often."""
    grid = np.array(full_grid(4, random.Random(0)))
    boards = np.tile(grid, (20_000, 1))
    copied, _ = symmetry.copies(boards, boards, 4, np.random.default_rng(0))
    kinds, often = np.unique(copied, axis=0, return_counts=True)
    everything = np.array(solve([0] * 16, 4, 288).tolist())
    form = symmetry.canonical(grid.tolist(), 4)
    same = [each.tolist() for each in everything if symmetry.canonical(each.tolist(), 4) == form]
    assert sorted(kinds.tolist()) == sorted(same) and len(same) in (96, 192)
    assert often.min() > 0.5 * often.mean() and often.max() < 1.5 * often.mean()


@pytest.mark.parametrize("side", [4, 6, 9])
def test_copies_are_puzzles_with_the_copied_solution(side: int) -> None:
    puzzles, solutions = drawn(side, 12)
    state = np.random.default_rng(3)
    inputs, labels = symmetry.copies(puzzles, solutions, side, state)
    assert not (inputs == puzzles).all(axis=1).any()
    for cells, answer in zip(inputs.tolist(), labels.tolist(), strict=True):
        assert solve(cells, side).tolist() == [answer]
    again = symmetry.copies(puzzles, solutions, side, np.random.default_rng(3))
    assert (again[0] == inputs).all() and (again[1] == labels).all()
    assert (symmetry.copies(puzzles, solutions, side, state)[0] != inputs).any()


@pytest.mark.parametrize("side", [4, 6, 9])
def test_canonical_forms_are_equal_for_copies_and_differ_for_different_puzzles(side: int) -> None:
    puzzles, solutions = drawn(side, 200)
    for boards in (puzzles, solutions):
        board = np.tile(boards[0], (200, 1))
        copied, _ = symmetry.copies(board, board, side, np.random.default_rng(1))
        assert {symmetry.canonical(each, side) for each in copied} == {symmetry.canonical(boards[0], side)}
    if side != 4:  # few puzzles of side 4 are no copies of each other
        assert len({symmetry.canonical(each, side) for each in puzzles}) == 200
    # The form is a copy itself: it has a solution of the same form.
    form = [int(sign) for sign in symmetry.canonical(puzzles[0], side)]
    found = solve(form, side)
    assert len(found) == 1
    assert symmetry.canonical(found[0], side) == symmetry.canonical(solutions[0], side)


def test_canonical_form_is_the_smallest_of_all_copies() -> None:
    """By brute force over all places, the digits renamed as they appear."""
    for side in (4, 6):
        puzzles, _ = drawn(side, 3)
        rows, columns = symmetry.placements(side)
        for puzzle in puzzles:
            square = puzzle.reshape(side, side)
            texts = []
            for board in (square, square.T)[: 1 if side == 6 else 2]:
                for down in rows:
                    for across in columns:
                        copied = board[down][:, across].ravel().tolist()
                        names: dict[int, int] = {}
                        texts.append("".join(str(v and names.setdefault(v, len(names) + 1)) for v in copied))
            assert symmetry.canonical(puzzle, side) == min(texts)


def test_turns_are_the_eight_of_the_square_and_their_inverses_take_them_back() -> None:
    board = np.arange(25)
    turned = [symmetry.turned(board, turn, 5) for turn in range(symmetry.DIHEDRAL)]
    assert len({tuple(each) for each in turned}) == 8
    for turn, inverse in enumerate(symmetry.INVERSE):
        assert (symmetry.turned(turned[turn], inverse, 5) == board).all()
        together = symmetry.turned(turned[turn], 1, 5)
        assert any((together == each).all() for each in turned), "one turn after another is one of them"
    assert turned[1].reshape(5, 5).tolist() == np.rot90(board.reshape(5, 5)).tolist()


def test_copies_of_mazes_turn_question_and_answer_alike() -> None:
    generator = np.random.default_rng(0)
    mazes = generator.integers(0, 4, (64, 36))
    inputs, labels = symmetry.turned_copies(mazes, mazes + 10, 6, generator)
    assert (labels == inputs + 10).all()
    turns = [[t for t in range(8) if (symmetry.turned(a, t, 6) == b).all()] for a, b in zip(mazes, inputs, strict=True)]
    assert {turn for (turn,) in turns} == set(range(8))
    texts = ["".join(map(str, each)) for each in mazes.tolist()]
    forms = {symmetry.canonical_maze(each, 6) for each in texts}
    assert len(forms) == 64
    assert {symmetry.canonical_maze("".join(map(str, each)), 6) for each in inputs.tolist()} == forms
