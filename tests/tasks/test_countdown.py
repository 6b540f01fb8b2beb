"""Countdown and its search: against brute force over all ways; splits apart; mistakes in one line."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest

from rewards.arithmetic import evaluate
from rewards.puzzles import countdown
from tasks import countdown as task
from tasks.problem import TaskError
from tasks.puzzles.expressions import Expressions
from tasks.registry import load


def by_pairs(values: Sequence[Fraction], whole: bool) -> Iterator[Fraction]:
    """Any two are replaced by what they can be combined to, until one is left: another way to go through all."""
    if len(values) == 1:
        yield values[0]
        return
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if i == j:
                continue
            rest = [each for k, each in enumerate(values) if k not in (i, j)]
            for value in (a + b, a - b, a * b, a / b if b else None):
                if value is None or (whole and (value < 0 or value.denominator != 1)):
                    continue
                yield from by_pairs([*rest, value], whole)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("numbers", [[3, 3, 8], [8, 3, 8, 3], [1, 1, 1], [2, 5, 10, 1], [7], [100, 99, 98]])
def test_the_values_are_those_of_brute_force_and_expressions_have_them(numbers: list[int], whole: bool) -> None:
    expressions = Expressions(numbers, whole)
    assert set(expressions.values) == set(by_pairs([Fraction(each) for each in numbers], whole))
    for value in expressions.values:
        text = expressions.written(value)
        assert text is not None
        found, used = evaluate(text)
        assert found == value and sorted(used) == sorted(numbers)
    assert expressions.written(10**9) is None


def test_only_fractions_solve_the_famous_24() -> None:
    assert Expressions([8, 3, 8, 3], whole=True).written(24) is None
    text = Expressions([8, 3, 8, 3], whole=False).written(24)
    assert text is not None and evaluate(text)[0] == 24


@pytest.mark.parametrize("options", [{}, {"numbers": 4}, {"numbers": 4, "largest": 20}, {"numbers": 5, "size": 8}])
def test_every_problem_has_the_solution_that_it_tells(options: dict[str, Any]) -> None:
    rows = load("countdown", "train", **({"size": 60} | options))
    for each in rows.problems:
        given, target = each.columns["numbers"], each.columns["target"]
        assert len(given) == options.get("numbers", 3)
        assert all(1 <= number <= options.get("largest", 100) for number in given)
        assert 10 <= target <= options.get("largest", 100)
        assert countdown([""], [each.answer], numbers=[given], target=[target]) == [1.0]
        assert f"Numbers: {', '.join(map(str, given))}. Target: {target}." in each.question
        assert each.columns.keys() == task.columns("train", **options)
    assert len({each.id for each in rows.problems}) == len(rows.problems)


def test_splits_share_no_numbers_and_a_seed_gives_the_same_problems() -> None:
    """So few numbers that most come more than once."""
    groups = []
    for seed, split in enumerate(task.SPLITS):
        rows = load("countdown", split, largest=12, size=(200, 30, 30)[seed], seed=seed)
        assert dict(rows.dropped)["duplicate"] > 0
        assert {each.cluster for each in rows.problems} == {
            "-".join(map(str, sorted(each.columns["numbers"]))) for each in rows.problems
        }
        groups.append({each.cluster for each in rows.problems})
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    first = load("countdown", "test", size=20).problems
    task._load.cache_clear()
    random.seed(3)
    assert load("countdown", "test", size=20).problems == first
    assert load("countdown", "test", size=10).problems == first[:10]
    assert load("countdown", "test", size=20, seed=1).problems != first


def test_a_seed_gives_the_same_problems_on_every_machine() -> None:
    first = load("countdown", "test", size=1).problems[0]
    assert (first.id, first.answer) == ("9-25-95=61", "(95 - 9) - 25")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "dev"}, "no split 'dev'; it has train, validation, test"),
        ({"numbers": 6}, "numbers is a whole number from 3 to 5, not 6"),
        ({"numbers": "3"}, "numbers is a whole number"),
        ({"largest": 9}, "largest is a whole number from 10 to 1000, not 9"),
        ({"size": 0}, "size is a whole number of 1 or more"),
        ({"seed": True}, "seed is a whole number of 0 or more"),
        ({"largest": 10}, r"countdown of 3 numbers up to 10, split train: \d+ problems found, then none in 300 draws"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "FRUITLESS", 300)
    with pytest.raises(TaskError, match=words) as refused:
        load("countdown", **({"split": "train"} | options))
    assert "\n" not in str(refused.value)
