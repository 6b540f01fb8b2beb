"""Every scorer that is let in grades its own gold answers right; those that are not say why, and who grades instead."""

from __future__ import annotations

import ast
import inspect
import json
import pickle
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.grading import refused_golds, untold
from eval.registry import find
from eval.summary import constant_baseline
from rewards import registry
from rewards.contract import RewardError, Scores, score
from rewards.pool import close_shared
from rewards.reasoning_gym import MOST_CHARACTERS, REFUSED, Scorer
from tasks import gym_package
from tasks.problem import Problem
from tasks.registry import load

pytest.importorskip("reasoning_gym")

WITHOUT_GOLD = {"boxnet", "rush_hour"}
"""Many answers are right, and the package tells none of them."""
ALLOWED = sorted(set(gym_package.modules()) - set(REFUSED) - WITHOUT_GOLD)


@pytest.fixture(scope="module", autouse=True)
def pools() -> Iterator[None]:
    yield
    close_shared()


def grade(name: str, answers: Sequence[str], problems: Sequence[Problem], **options: Any) -> Scores:
    columns = {key: [p.columns[key] for p in problems] for key in problems[0].columns}
    gold = [p.answer for p in problems]
    reward = registry.load(name, options)
    return score(reward, [""] * len(answers), answers, answer=gold, **columns)


@pytest.mark.parametrize("dataset", ALLOWED)
def test_gold_answers_score_the_maximum_others_less_and_none_is_run(dataset: str, tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    problems = load(f"rg:{dataset}", size=2).problems
    assert grade(f"rg:{dataset}", [p.answer for p in problems], problems).values == [1.0, 1.0]
    code = f"__import__('pathlib').Path({str(flag)!r}).touch()"
    for wrong in ("", "no such answer", "nan", "{}", "[[]]", code, f"[{code}]"):
        for value in grade(f"rg:{dataset}", [wrong] * 2, problems).values:
            assert value is None or value < 1, wrong
    assert not flag.exists()


@pytest.mark.parametrize("dataset", sorted(name for name, (_, instead) in REFUSED.items() if instead))
def test_what_is_named_in_place_of_a_scorer_grades_its_problems(dataset: str) -> None:
    instead = REFUSED[dataset][1]
    assert instead is not None
    problems = load(f"rg:{dataset}", "test", size=2).problems
    assert grade(instead, [f"<answer>{p.answer}</answer>" for p in problems], problems).values == [1.0, 1.0]
    assert grade(instead, ["no such answer"] * 2, problems).values == [0.0, 0.0]


def test_every_dataset_is_a_suite_but_those_that_nothing_grades() -> None:
    refused = set()
    for dataset in gym_package.modules():
        try:
            registry.entry(find(f"rg:{dataset}").reward)
        except RewardError:
            refused.add(dataset)
    assert refused == {name for name, (_, instead) in REFUSED.items() if instead is None}
    page = Path("docs/evaluation.md").read_text()
    assert len(refused) == 5 and all(f"`{name}`" in page for name in refused)


@pytest.mark.parametrize("dataset", sorted(WITHOUT_GOLD))
def test_problems_that_tell_no_answer_are_passed_over_and_said(dataset: str) -> None:
    one = load(f"rg:{dataset}", "test", size=1).problems
    assert refused_golds(one, registry.load(f"rg:{dataset}"), every=True) == []
    assert untold(one) == "1 of 1 problems tell no gold answer: their reward alone grades"
    assert constant_baseline(one).value == 0
    told = Problem("a", "?", "7")
    number = registry.load("number")
    assert refused_golds([*one, replace(told, answer="x")], number) == [("a", "no gold")]
    assert untold([told]) is None and constant_baseline([*one, told]).value == 0.5


@pytest.mark.parametrize("reward", ["sudoku", "sudoku_cells"])
@pytest.mark.parametrize("dataset", ["mini_sudoku", "sudoku"])
def test_our_own_checkers_of_grids(dataset: str, reward: str) -> None:
    problems = load(f"rg:{dataset}", size=2).problems
    assert grade(reward, [p.answer for p in problems], problems).values == [1.0, 1.0]
    swapped = [p.answer.translate(str.maketrans("12", "21")) for p in problems]
    assert all(value is not None and value < 1 for value in grade(reward, swapped, problems).values)


def test_refusals_say_why_and_what_else() -> None:
    with pytest.raises(RewardError, match=r"`rg:countdown` is refused: .* answer as Python .*; use `countdown`"):
        registry.entry("rg:countdown")
    with pytest.raises(RewardError, match=r"`rg:n_queens` is refused: .*eval.*; no other reward that ships"):
        registry.load("rg:n_queens")
    with pytest.raises(RewardError, match="no dataset `sokobna`; did you mean `sokoban`"):
        registry.entry("rg:sokobna")


def test_every_scorer_that_calls_code_on_anything_is_accounted_for() -> None:
    """Reads the methods that grade: a version of the package that runs answers elsewhere too is found here."""
    from reasoning_gym.factory import DATASETS

    running = set()
    for name in gym_package.modules():
        make = DATASETS[name][0]
        tree = ast.parse(textwrap.dedent(inspect.getsource(make.score_answer)))
        calls = {
            each.func.id if isinstance(each.func, ast.Name) else each.func.attr
            for each in ast.walk(tree)
            if isinstance(each, ast.Call) and isinstance(each.func, ast.Name | ast.Attribute)
        }
        if calls & {"eval", "exec", "compile", "parse_expr", "sympify", "__import__"}:
            running.add(name)
    executed = {name for name, (why, _) in REFUSED.items() if "as Python" in why}
    assert running == executed | {"number_sorting"}  # which evaluates its own gold answer


@pytest.mark.parametrize(("dataset", "answer"), [("complex_arithmetic", "nan"), ("coin_flip", "0")])
def test_the_scorers_refused_for_their_verdicts_give_them(dataset: str, answer: str) -> None:
    import reasoning_gym

    source = reasoning_gym.create_dataset(dataset, seed=1, size=20)
    wrong = [entry for entry in source if entry["answer"] != answer and entry["answer"].startswith(("0.", "-", "1"))]
    assert wrong and any(source.score_answer(answer, entry=entry) == 1 for entry in wrong)


def test_what_cannot_be_graded_is_not_zero_and_what_is_no_answer_is() -> None:
    one = load("rg:prime_factorization", size=1).problems[0]
    texts = [one.answer, "no", "", "2" * (MOST_CHARACTERS + 1), "<think>unfinished", "2"]
    found = grade("rg:prime_factorization", texts, [one] * len(texts))
    assert found.values[:5] == [1.0, 0.0, 0.0, 0.0, 0.0] and found.values[5] == 0.01
    assert found.notes == {1: "unparsed", 2: "unparsed", 3: "too large", 4: "unparsed"}
    reward = Scorer("prime_factorization")
    entries = [None, "{", json.dumps({"dataset": "gcd", "settings": {}, "entry": {}})]
    assert score(reward, [""] * 3, ["2"] * 3, entry=entries).values == [None] * 3
    broken = json.dumps({"dataset": "prime_factorization", "settings": {}, "entry": {"answer": "x"}})
    found = score(reward, [""], ["2"], entry=[broken])
    assert found.values == [None] and found.notes == {0: "error"}


def test_a_scorer_that_never_ends_is_stopped() -> None:
    one = load("rg:rubiks_cube", size=1).problems[0]
    found = grade("rg:rubiks_cube", ["U99999999", one.answer], [one] * 2, seconds=1.0)
    assert found.values == [None, 1.0] and found.notes[0] in ("timeout", "died")


def test_the_settings_of_the_task_reach_the_scorer() -> None:
    """Decimal answers may be off by the last digit that the dataset's settings ask for."""
    for places, expected in ((2, 1.0), (6, 0.0)):
        one = load("rg:decimal_arithmetic", size=1, min_num_decimal_places=2, max_num_decimal_places=places).problems[0]
        near = str(round(float(one.answer) + 0.001, 9))
        assert grade("rg:decimal_arithmetic", [near], [one]).values == [expected]


def test_a_scorer_pickles_as_its_name_and_answers_are_found_as_elsewhere() -> None:
    again = pickle.loads(pickle.dumps(registry.load("rg:gcd")))
    one = load("rg:gcd", size=1).problems[0]
    texts = [f"<think>a</think>It is <answer>{one.answer}</answer>", rf"so \boxed{{{one.answer}}}"]
    assert score(again, ["", ""], texts, entry=[one.columns["entry"]] * 2).values == [1.0, 1.0]
