from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.normalise import normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red.", "red"),
        ("  A red\ttriangle!\n", "red triangle"),
        ("two", "2"),
        ("None", "0"),
        ("1,000", "1000"),
        ("2.5", "2.5"),
        ("2.5.", "2.5"),
        (".5", ".5"),
        ("-3", "-3"),
        ("x-3", "x 3"),
        ("T-shirt", "t shirt"),
        ("don't", "dont"),
        ("don’t", "dont"),
        ("red, blue", "red blue"),
        ("red,blue", "red blue"),
        ("(yes)", "yes"),
        ("A", "a"),
        ("the", "the"),
        ("...", ""),
        ("", ""),
        ("ＲＥＤ", "red"),
        ("$5", "$5"),
        ("snake_case", "snake case"),
    ],
)
def test_normal_form(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text(max_size=40))
def test_is_idempotent_and_blind_to_case_and_margins(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(f"  {text}\n") == once


def test_different_answers_stay_different() -> None:
    golds = ["yes", "no", "rectangle", "circle", "triangle", "gray", "0", "1", "10", "-1", "1.0", "a", "an"]
    assert len({normalise(gold) for gold in golds}) == len(golds)
