"""Equal values in other forms count, other values do not; what cannot be decided is None and said."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path

import pytest

from rewards import maths
from rewards.contract import score
from rewards.maths import as_number, too_large

EQUAL = [
    ("1/2", "0.5"),
    (r"\frac{1}{2}", "0.5"),
    ("0.5", r"\frac{1}{2}"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("x^2+2x+1", "(x+1)^2"),
    ("1,000", "1000"),
    (r"\$12.50", "12.5"),
    (r"(1, 2)", r"(1,2)"),
    (r"\{1,2\}", r"\{2,1\}"),
    (r"\frac{\pi}{2}", r"\pi/2"),
    ("2^{10}", "1024"),
]
DIFFERENT = [("1/2", "1/3"), ("12", "21"), ("x+1", "x-1"), (r"\sqrt{2}", "1.41"), ("(1,2)", "(2,1)"), ("-3", "3")]


def graded(completion: str, gold: str | None, reward: str = "maths") -> tuple[float | None, str | None]:
    scores = score(getattr(maths, reward), [""], [completion], answer=[gold])
    return scores.values[0], scores.notes.get(0)


@pytest.mark.parametrize(("answer", "gold"), EQUAL)
def test_equal_values(answer: str, gold: str) -> None:
    assert graded(rf"So it is \boxed{{{answer}}}.", gold) == (1.0, None)
    assert graded(f"<answer>{answer}</answer>", gold) == (1.0, None)


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_other_values(answer: str, gold: str) -> None:
    assert graded(rf"\boxed{{{answer}}}", gold) == (0.0, None)


def test_gold_and_answer_are_not_exchanged() -> None:
    """The checker lets an answer name the variable of a bare value, and never the other way round."""
    assert graded(r"\boxed{x=3}", "3")[0] == 1.0
    assert graded(r"\boxed{3}", "no such value")[1] in ("no gold", None)


def test_what_cannot_be_scored_is_none_and_never_zero() -> None:
    assert graded(r"\boxed{1}", None) == (None, "no gold")
    assert graded(r"\boxed{1}", "9" * 200) == (None, "no gold")
    assert graded("", "1/2") == (0.0, "unparsed")
    assert graded("<think>never closed 1/2", "1/2") == (0.0, "unparsed")


def test_a_time_out_is_none_and_the_other_rows_keep_their_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    # The limits let nothing through that is known to hang, so they are opened for this test.
    monkeypatch.setattr(maths, "too_large", lambda text: False)
    completions = [r"\boxed{5^{5^{5^{5}}}}", r"\boxed{\frac{2}{4}}"]
    began = time.monotonic()
    scores = score(maths.maths, ["", ""], completions, answer=["1/2", "1/2"], seconds=1.0)
    assert scores.values == [None, 1.0] and scores.notes == {0: "timeout"}
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", Fraction(12)),
        ("-1,234.50", Fraction(-2469, 2)),
        ("$ 3.", Fraction(3)),
        (".5", Fraction(1, 2)),
        ("1,00", None),
        ("", None),
        (".", None),
        ("1e5", None),
        ("٣", None),
        ("1/2", None),
        ("9" * 129, None),
    ],
)
def test_plain_numbers(text: str, value: Fraction | None) -> None:
    assert as_number(text) == value


def test_numbers_of_word_problems() -> None:
    assert graded("<answer>$1,080</answer>", "some working #### 1080", "number") == (1.0, None)
    assert graded("It is 1080", "1080", "number") == (0.0, "unparsed")
    assert graded("1081", "1080", "number") == (0.0, None)
    assert graded("1", "a word", "number") == (None, "no gold")


@pytest.mark.parametrize(
    ("completion", "number", "maths"),
    [
        ("She sells 48 / 2 = 24 clips.\nIn all 48 + 24 = 72.\n#### 72", 1.0, 1.0),
        ("<think>24 + 48</think>In all: #### $72.00.", 1.0, 1.0),
        ("<answer>\n24 + 48\n#### 72\n</answer>", 1.0, 1.0),
        ("#### 24\n24 + 48 = 72\n#### 72\n", 1.0, 1.0),
        (r"#### 24 \boxed{72}", 1.0, 1.0),
        (r"\boxed{24} #### 72", 0.0, 0.0),
        ("#### 72\n#### 24", 0.0, 0.0),
        ("24 + 48 = 72\n#### 24", 0.0, 0.0),
        ("<think>#### 72</think>24", 0.0, 0.0),
        ("#### Step 2\n72", 0.0, None),
        ("72\n####", 0.0, None),
    ],
)
def test_what_follows_the_cue_of_gsm8k_is_the_answer(completion: str, number: float, maths: float | None) -> None:
    assert graded(completion, "24 + 48\n#### 72", "number")[0] == number
    if maths is not None:
        assert graded(completion, "72")[0] == maths


def test_a_cue_before_what_is_no_plain_number() -> None:
    assert graded("half of it\n#### 2/4", r"\frac{1}{2}") == (1.0, None)
    assert graded("half of it\n#### 2/4", r"\frac{1}{4}") == (0.0, None)


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^9}",
        "9**9**9",
        "2^{100000}",
        "5000!",
        "(" * 40 + "1" + ")" * 40,
        "1" * 200,
        "x" * 2000,
        "2^2^2",
        "3^{2^{9}}",
    ],
)
def test_what_is_too_large_to_look_at(text: str) -> None:
    assert too_large(text)


@pytest.mark.parametrize("text", ["x^2 + y^2 = z^2", r"\frac{1}{2}^{10}", "5!", r"e^{i\pi}", "a^{2}b^{3}c^{4}"])
def test_ordinary_answers_are_looked_at(text: str) -> None:
    assert not too_large(text)


def test_the_reader_of_plain_expressions_is_not_used(tmp_path: Path) -> None:
    """It is sympy's, and runs what it reads."""
    flag = tmp_path / "ran"
    for payload in (f"__import__('pathlib').Path('{flag}').touch()", f"open('{flag}','w')", "().__class__.__bases__"):
        for form in (payload, rf"\boxed{{{payload}}}", rf"\text{{{payload}}}", rf"\operatorname{{{payload}}}"):
            assert graded(form, "1/2")[0] in (0.0, None)
    assert not flag.exists()
