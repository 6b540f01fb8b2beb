"""Short answers and forms."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from rewards import builtin, forms
from rewards.answer import final_answer
from rewards.contract import score
from rewards.normalise import normalise


def one(reward: Any, completion: str, **columns: object) -> tuple[float | None, str | None]:
    scores = score(reward, [""], [completion], **{name: [value] for name, value in columns.items()})
    return scores.values[0], scores.notes.get(0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("red", "red"),
        ("<think>blue</think> red", "red"),
        ("blue</think>red", "red"),
        ("<think>red", None),
        ("<answer>blue</answer> no, <answer> red </answer>.", "red"),
        ("<answer>It is \\boxed{3}</answer> \\boxed{4}", "3"),
        ("\\boxed{1} or \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} or \\boxed{2", "1"),
        ("\\boxed{\\{1\\}}", "\\{1\\}"),
        ("<answer></answer>", None),
        ("  ", None),
    ],
)
def test_final_answers(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer
    assert answer is None or final_answer(answer) == answer, "found once, it is not changed"


@pytest.mark.parametrize(
    ("completion", "gold", "expected"),
    [
        ("B", "B", (1.0, None)),
        ("(b)", "B", (1.0, None)),
        ("The answer is (C).", "green", (1.0, None)),
        ("Green", "C", (1.0, None)),
        ("<answer>B: blue</answer>", "blue", (1.0, None)),
        ("A", "B", (0.0, None)),
        ("E", "B", (0.0, "unparsed")),
        ("A cat", "A", (0.0, "unparsed")),
        ("A) or B)", "A", (1.0, None)),
        ("answer: A. No, answer: B", "A", (0.0, "unparsed")),
        ("B", "purple", (None, "no gold")),
        ("B", None, (None, "no gold")),
    ],
)
def test_choice(completion: str, gold: str | None, expected: tuple[float | None, str | None]) -> None:
    assert one(builtin.choice, completion, answer=gold, choices=["red", "blue", "green"]) == expected


def test_choice_without_options_knows_letters_alone() -> None:
    assert one(builtin.choice, "D", answer="D") == (1.0, None)
    assert one(builtin.choice, "red", answer="A") == (0.0, "unparsed")


def test_vqa_accuracy_is_the_benchmark_s_average() -> None:
    """Against the definition: the mean over all nine-annotator subsets of min(1, agreeing / 3)."""
    for agreeing in range(11):
        given = ["red"] * agreeing + ["blue"] * (10 - agreeing)
        subsets = list(combinations(given, 9))
        expected = sum(min(1.0, subset.count("red") / 3) for subset in subsets) / len(subsets)
        assert one(builtin.vqa_accuracy, "Red.", answers=given)[0] == pytest.approx(expected)
    assert one(builtin.vqa_accuracy, "the red", answers=["red"]) == (1.0, None)
    assert one(builtin.vqa_accuracy, "red", answers=[]) == (None, "no gold")
    assert normalise("Red.") == "red"


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        ("a</think>\n<answer>b</answer>\n", 1.0),
        ("<answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer> and more", 0.0),
        ("<think>a</think><answer> </answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think><think>a</think><answer>b</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_answer_format(completion: str, value: float) -> None:
    assert one(forms.answer_format, completion) == (value, None)


def test_short_falls_from_the_target_to_twice_it() -> None:
    ids = [[0] * length for length in (0, 10, 15, 20, 40)]
    assert forms.short([""] * 5, [""] * 5, completion_ids=ids, target=10) == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert forms.short([""], ["one two three"], target=2) == [0.5]


@pytest.mark.parametrize(
    ("completion", "gold", "expected"),
    [
        ("A", "A", (1.0, None)),
        ("(a).", "B", (0.0, None)),
        ("B", "B", (1.0, None)),
        ("C", "C", (1.0, None)),
        ("D", "A", (1.0, None)),
    ],
)
def test_a_letter_alone_is_a_label_before_it_is_a_text(
    completion: str, gold: str, expected: tuple[float, str | None]
) -> None:
    """The parts of a diagram are named by letters: those of the options come first, then the texts."""
    assert one(builtin.choice, completion, answer=gold, choices=["D", "A", "B"]) == expected


@pytest.mark.parametrize(
    ("completion", "gold", "choices", "precision", "expected"),
    [
        ("(B)", "B", ["3", "4"], None, (1.0, None)),
        ("4", "B", ["3", "4"], 1.0, (1.0, None)),
        ("5", "B", ["3", "4"], None, (0.0, "unparsed")),
        ("4.0", "4", None, None, (1.0, None)),
        ("$1,204", "1204", [], None, (1.0, None)),
        ("4.01", "4", None, None, (0.0, None)),
        ("1.249", "1.2", None, 1.0, (1.0, None)),
        ("1.26", "1.2", None, 1.0, (0.0, None)),
        ("four", "4", None, None, (0.0, "unparsed")),
        ("[0, 2]", "[0, 2]", None, None, (1.0, None)),
        ("The Yes", "yes", None, None, (1.0, None)),
        ("no", "yes", None, None, (0.0, None)),
        ("", "yes", None, None, (0.0, "unparsed")),
        ("3", "C", ["3", "4"], None, (None, "no gold")),
        ("3", "", None, None, (None, "no gold")),
        ("3", None, None, None, (None, "no gold")),
    ],
)
def test_choice_or_value(
    completion: str, gold: str | None, choices: Any, precision: float | None, expected: tuple[float | None, str | None]
) -> None:
    columns = {"answer": gold, "choices": choices, "precision": precision}
    assert one(builtin.choice_or_value, completion, **columns) == expected
    if precision is None:
        assert one(builtin.choice_or_value, completion, answer=gold, choices=choices) == expected
    if not choices and precision is None:
        assert one(builtin.choice_or_value, completion, answer=gold) == expected
