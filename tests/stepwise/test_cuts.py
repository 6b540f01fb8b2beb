"""Cuts lie after sentences, apart, before the answer, and depend on nothing behind them."""

from __future__ import annotations

import random

from selfrefine.stepwise.cuts import boundaries, draw


def test_after_sentences_and_lines() -> None:
    assert boundaries(list("ab. cd\nef"), gap=1) == [3, 4, 7]
    assert boundaries(["One", ".", " Two", "!", "\n", "Three", "."], gap=2) == [2, 4]
    assert boundaries([], gap=1) == boundaries(["."], gap=1) == []


def test_none_once_the_answer_has_begun() -> None:
    pieces = ["a", ".", "b", ".", "<ans", "wer", ">", "4", ".", "5", "."]
    assert boundaries(pieces, gap=1) == [2, 4]
    assert boundaries(["a", ".", "\\box", "ed{", "1", ".", "}", "."], gap=1) == [2]


def test_places_depend_on_what_stands_before_them_alone() -> None:
    """So that a branch might have been cut at the same place: the cut is a stopping time."""
    generator = random.Random(0)
    for _ in range(200):
        pieces = generator.choices([".", "\n", "a", " b", "1"], k=40)
        whole = boundaries(pieces, gap=4)
        for length in range(1, 40):
            assert boundaries([*pieces[:length], "x"], gap=4) == [place for place in whole if place <= length]


def test_draws_are_in_order_without_repetition_and_by_identity() -> None:
    places = list(range(0, 100, 5))
    drawn = draw(places, 4, "row", 1)
    assert drawn == sorted(set(drawn)) and len(drawn) == 4 and set(drawn) <= set(places)
    assert drawn == draw(places, 4, "row", 1) != draw(places, 4, "row", 2)
    assert draw([3, 5], 4, "row") == [3, 5] and draw([], 2, "row") == []
