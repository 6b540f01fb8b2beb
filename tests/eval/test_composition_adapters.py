"""Factors of problems, against what the problems were made of."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from eval.composition import mazes, sudokus, words
from eval.composition.adapters import ADAPTERS, chain_graph
from eval.composition.split import split
from tasks.problem import Problem, TaskError
from tasks.puzzles.symmetry import turned
from tasks.registry import load

MAZE = """\
S..#.
##.#.
...##
.##..
...G#"""


def maze(text: str) -> Problem:
    return Problem("m", text, "", columns={"maze": text})


def test_a_maze_is_told_by_its_path_and_its_patches() -> None:
    cells = mazes.route(MAZE.split("\n"))
    assert cells == [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2), (4, 3)]
    # 11 steps with 3 turns and runs of 2, 2, 2, 2, 3; of 15 free cells the two at the upper right and one at the lower
    # right lead nowhere.
    assert mazes.factors(maze(MAZE)) == {
        "turn": "some", "corridor": "few", "dead_end": "many", "start": "end", "goal": "bend",
    }  # fmt: skip


def test_a_maze_turned_has_the_same_factors() -> None:
    import numpy as np

    for problem in load("maze", "test", side=8, size=20).problems:
        cells = np.array(list(problem.question.replace("\n", "")))
        for turn in range(8):
            signs = turned(cells, turn, 8)
            text = "\n".join("".join(row) for row in signs.reshape(8, 8))
            assert mazes.factors(maze(text)) == mazes.factors(problem)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("S.\n.G", "not exactly one shortest path"),
        ("S#\n#G", "not exactly one shortest path"),
        ("S.\nG", "no rectangle"),
        ("S.\n..", "no rectangle"),
    ],
)
def test_a_maze_without_factors_says_why(text: str, told: str) -> None:
    found = mazes.factors(maze(text))
    assert isinstance(found, str) and told in found
    assert mazes.factors(Problem("x", "?", "1")) == "no column `maze`"


def test_the_mazes_of_the_task_can_be_split() -> None:
    problems = load("maze", "train", side=8, size=500).problems
    found = ADAPTERS["maze"](problems)
    for root in ("turn", "corridor", "dead_end"):
        bands = Counter(item[root] for item in found.items if not isinstance(item, str))
        assert set(bands) == {"few", "some", "many"} and min(bands.values()) >= 25
    made = split(problems, found, 0, 70)
    assert not made.dropped and min(made.combos().values()) >= 30


def test_the_technique_of_a_sudoku_is_the_least_that_suffices() -> None:
    found = {
        level: Counter(
            item["technique"]
            for item in ADAPTERS["sudoku"](load("sudoku", "train", side=9, level=level, size=12).problems).items
            if not isinstance(item, str)
        )
        for level in ("easy", "medium", "hard")
    }
    assert set(found["easy"]) <= {"naked", "hidden"} and found["easy"]["hidden"]
    assert set(found["medium"]) == {"locked"} and set(found["hard"]) == {"guess"}


def test_a_sudoku_that_fills_itself_takes_naked_singles() -> None:
    solution = "1234341221434321"
    puzzle = "0234341221434320"
    item = sudokus.factors(Problem("s", "?", solution, columns={"puzzle": puzzle}))
    assert item == {"technique": "naked", "empty": "0.1", "digit": "1", "box": "1"}
    for bad, told in (("123", "no grid"), ("11" + "0" * 14, "no solution")):
        reason = sudokus.factors(Problem("s", "?", "", columns={"puzzle": bad}))
        assert isinstance(reason, str) and told in reason


WEDNESDAY = (
    "Every Wednesday Anna sells 12 cakes for $3 each, and Ben takes half of the money. How many dollars are left?"
)


@pytest.mark.parametrize(
    ("question", "answer", "item"),
    [
        (WEDNESDAY, "She gets <<12*3=36>>36 and keeps <<36/2=18>>18.", ("more", "* /", "money", "told")),
        ("There are 5 hens. A hen lays 3 eggs. How many eggs?", "<<3*5=15>>15", ("none", "*", "count", "other")),
        ("A walk of 4 miles takes Eva, who rests 10 minutes, 50 minutes. How long for 2 miles?",
         "<<50-10=40>>40 <<40/2=20>>20", ("one", "- /", "length", "other")),
        ("Pay 7,500 and 20 more. How much is 10%?", "<<7500+20=7520>> <<7520*10/100=752>>",
         ("none", "* + /", "share", "told")),
    ],
)  # fmt: skip
def test_a_word_problem_is_told_by_its_calculation_and_words(
    question: str, answer: str, item: tuple[str, str, str, str]
) -> None:
    assert words.factors(Problem("w", question, answer)) == dict(zip(words.ROOTS, item, strict=True))
    # The same where the calculation lies in a column.
    assert words.factors(Problem("w", question, "18", columns={"solution": answer})) == dict(
        zip(words.ROOTS, item, strict=True)
    )


def test_columns_of_a_word_problem_come_first() -> None:
    columns = {"entity": "hens", "operation": "add", "unit": "eggs", "order": "late", "n": 3}
    assert words.factors(Problem("w", "?", "1", columns=columns)) == {root: columns[root] for root in words.ROOTS}
    assert words.factors(Problem("w", "2 and 2?", "4")) == "no calculation of the form <<48/2=24>>"


def test_operators_stand_between_numbers_or_in_a_column() -> None:
    problems = [
        Problem("1", "What is 4 + 30 - (2 * 7)?", "20"),
        Problem("2", "Calculate -3 * -4 =", "12"),
        Problem("3", "?", "1", columns={"chain": "up down up"}),
        Problem("4", "Nothing to do.", "1"),
    ]
    found = ADAPTERS["chain"](problems)
    assert found.graph.roots == ("op1", "op2", "op3") and found.graph.modules == chain_graph(3).modules
    assert found.items == [
        {"op1": "+", "op2": "-", "op3": "*"},
        {"op1": "*", "op2": "end", "op3": "end"},
        {"op1": "up", "op2": "down", "op3": "up"},
        "no operator",
    ]
    with pytest.raises(TaskError, match="no problem has a chain of 2 operators"):
        ADAPTERS["chain"](problems[1:2])


def test_a_scene_has_none_of_what_is_not_asked() -> None:
    columns = {"object": "cup", "attribute": "red", "relation": None, "count": 2}
    problems = [Problem("1", "?", "2", columns=columns), Problem("2", "?", "2", columns={"object": None})]
    assert ADAPTERS["scene"](problems).items == [
        {"object": "cup", "attribute": "red", "relation": "none", "other": "none", "count": "2"}, "no `object`",
    ]  # fmt: skip


def test_scenes_split_by_what_was_seen_together() -> None:
    generator = random.Random(0)
    names = ("object", "attribute", "relation", "count")
    rows = [Problem(str(n), "?", "1", columns={name: generator.randrange(5) for name in names}) for n in range(1500)]
    made = split(rows, ADAPTERS["scene"](rows), 0, 50)
    assert {name for each in made.test for name in each.blocked_by} <= {"thing", "place", "mark", "number"}
    assert min(made.combos().values()) >= 30
