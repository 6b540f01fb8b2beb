"""Sudoku as a task: known puzzles, splits, levels, mistakes in one line."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import pytest

from rewards.puzzles import sudoku, sudoku_cells
from tasks import sudoku as task
from tasks.problem import TaskError
from tasks.puzzles.solver import grade, solve
from tasks.puzzles.symmetry import canonical
from tasks.registry import load
from tests.tasks import slow_sudoku


def every_grid_of_side_4() -> list[list[int]]:
    rows = list(permutations(range(1, 5)))
    found = []
    for grid in product(rows, repeat=4):
        columns = all(len({row[c] for row in grid}) == 4 for c in range(4))
        boxes = all(len({grid[r + i][c + j] for i in range(2) for j in range(2)}) == 4 for r in (0, 2) for c in (0, 2))
        if columns and boxes:
            found.append([value for row in grid for value in row])
    return found


def cells_of(text: str) -> list[int]:
    return [int(sign) for sign in text]


def test_solvers_find_all_grids_and_all_solutions() -> None:
    grids = every_grid_of_side_4()
    assert len(grids) == 288
    clues = [1, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 2, 0, 0]
    for given in ([0] * 16, clues, [1, 1, *[0] * 14]):
        wanted = sorted(grid for grid in grids if all(c in (0, g) for c, g in zip(given, grid, strict=True)))
        assert sorted(solve(given, 4, 1000).tolist()) == wanted
        assert sorted(slow_sudoku.solutions(given, 4)) == wanted


KNOWN = [
    ({"split": "train"}, "2341140300003014", "2341142341323214"),
    ({"split": "test", "seed": 3}, "1002020421430301", "1432321421434321"),
    ({"split": "train", "side": 6}, "201305360014002436006521020100150602", "241365365214512436436521624153153642"),
    (
        {"split": "validation", "side": 9},
        "438000006006082450005604908359806100000000500000503080740018600080700340002430017",
        "438951726976382451215674938359826174824197563167543289743218695581769342692435817",
    ),
    (
        {"split": "train", "side": 9, "seed": 1, "least_empty": 50, "most_empty": 52},
        "000002685800070319000610004000900000000200000790000201900006570375009002006020190",
        "147392685862574319539618724213957846658241937794863251921436578375189462486725193",
    ),
    (
        {"split": "test", "least_empty": 13, "most_empty": 15, "unique": False},
        "0020200000000200",
        "1423234141323214",
    ),
    (
        {"split": "test", "side": 9, "least_empty": 60, "most_empty": 70, "unique": False},
        "700000000000000000600000090300000000002003000000000000000000080010080000009060000",
        "723591468981746325645238791358624179492173856167859234274915683516387942839462517",
    ),
]


@pytest.mark.parametrize(("options", "clues", "solution"), KNOWN)
def test_a_seed_gives_the_puzzles_that_it_always_gave(options: dict[str, Any], clues: str, solution: str) -> None:
    """Results that are written down were measured on them."""
    first = load("sudoku", size=1, **options).problems[0]
    assert (first.id, "".join(first.answer.split())) == (clues, solution)
    assert first.cluster == first.columns["puzzle"] == clues and first.kind == f"{clues.count('0')} empty"


@pytest.mark.parametrize(
    ("options", "clues", "backtracks"),
    [
        ({"side": 6, "split": "train", "level": "hard"}, "040100000030200000100005006024000000", 0.4),
        (
            {"side": 9, "split": "test", "level": "hard"},
            "000500709020007800600019040003090000000085060060003001006000080950000000470050090",
            1.1,
        ),
        (
            {"side": 9, "split": "train", "level": "extreme"},
            "090000250000070001802500700270080000308600000060003000000700100900000603000005004",
            10.1,
        ),
        ({"side": 6, "split": "validation", "split_by": "symmetry"}, "042601016400403500105042234160000234", None),
    ],
)
def test_a_seed_gives_the_same_puzzles_of_a_level_on_every_machine(
    options: dict[str, Any], clues: str, backtracks: float | None
) -> None:
    first = load("sudoku", size=1, **options).problems[0]
    assert (first.id, first.columns.get("backtracks")) == (clues, backtracks)


def test_puzzles_with_many_solutions_accept_each_of_them() -> None:
    rows = load("sudoku", "test", size=20, least_empty=13, most_empty=15, unique=False).problems
    assert all(13 <= problem.columns["puzzle"].count("0") <= 15 for problem in rows)
    for problem in rows:
        found = list(slow_sudoku.solutions(cells_of(problem.columns["puzzle"]), 4))[:5]
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
    ("side", "options", "sizes"),
    [
        (4, {"split_by": "symmetry"}, (300, 40, 40)),
        (6, {"level": "easy"}, (300, 40, 40)),
        (9, {"split_by": "symmetry"}, (60, 8, 8)),
        (9, {"level": "hard"}, (60, 8, 8)),
    ],
)
def test_splits_by_symmetry_share_no_puzzle_in_any_guise(
    side: int, options: dict[str, str], sizes: tuple[int, ...]
) -> None:
    puzzles: list[set[str]] = []
    solutions: list[set[str]] = []
    for number, (split, size) in enumerate(zip(task.SPLITS, sizes, strict=True)):
        rows = load("sudoku", split, side=side, size=size, seed=number % 2, **options).problems
        puzzles.append({canonical(cells_of(each.columns["puzzle"]), side) for each in rows})
        solutions.append({canonical(cells_of("".join(each.answer.split())), side) for each in rows})
        assert len(puzzles[-1]) == size, "no two are copies of each other"
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not puzzles[a] & puzzles[b]
        assert side != 9 or not solutions[a] & solutions[b]
    if side == 4:
        # Any split has them all.
        assert len(set.union(*solutions)) == 2


@pytest.mark.parametrize(
    ("side", "level", "size"),
    [(6, "medium", 3), (6, "hard", 10), (9, "easy", 10), (9, "medium", 5), (9, "extreme", 3)],
)
def test_a_level_gives_puzzles_of_that_level(side: int, level: str, size: int) -> None:
    rows = load("sudoku", "train", side=side, level=level, size=size).problems
    assert len({each.id for each in rows}) == size
    for each in rows:
        cells = cells_of(each.columns["puzzle"])
        found = grade(cells, side)
        assert (each.kind, each.columns["backtracks"]) == (level, found.backtracks) and found.level == level
        assert each.cluster == "".join(each.answer.split())
        assert sudoku([""], [each.answer], puzzle=[each.columns["puzzle"]]) == [1.0]
        assert [cells_of(each.cluster)] == list(slow_sudoku.solutions(cells, side))
    # Those found in one grid are counted as alike.
    assert (len({each.cluster for each in rows}) < size) == (level == "extreme")
    assert load("sudoku", "train", side=side, level=level, size=size - 1).problems == rows[:-1]


def test_a_search_that_finds_nothing_more_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "FRUITLESS", 10)
    with pytest.raises(TaskError, match=r"level medium, split test: 0 puzzles found, then none in 10 grids; 5 asked"):
        load("sudoku", "test", side=6, level="medium", size=5, seed=77)
    with pytest.raises(TaskError, match=r"side 4, split test: \d+ puzzles found, 40 asked for"):
        load("sudoku", "test", side=4, split_by="symmetry", least_empty=1, most_empty=2, size=40)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": 5}, "side is one of 4, 6, 9"),
        ({"least_empty": 9, "most_empty": 8}, "least_empty ≤ most_empty"),
        ({"most_empty": 16}, "≤ 12"),
        ({"size": 0}, "size is a whole number"),
        ({"split": "dev"}, "no split 'dev'"),
        ({"level": "hard"}, "side 4 has no level 'hard'; side 6 has easy, medium, hard; side 9 has easy"),
        ({"level": "extreme", "side": 6}, "side 6 has no level 'extreme'"),
        ({"level": "hard", "side": 9, "most_empty": 50}, "leave out least_empty"),
        ({"level": "hard", "side": 9, "unique": False}, "leave out least_empty"),
        ({"level": "hard", "side": 9, "split_by": "clues"}, "leave out split_by"),
        ({"split_by": "colour"}, "split_by is one of clues, symmetry"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        load("sudoku", **({"split": "train"} | options))  # type: ignore[arg-type]
