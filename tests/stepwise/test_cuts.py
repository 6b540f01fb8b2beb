"""Cuts lie after sentences, apart, before the answer, and depend on nothing behind them."""

from __future__ import annotations

import random

from selfrefine.stepwise.cuts import boundaries, draw, flip


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


def test_whether_a_place_is_a_cut_does_not_depend_on_what_follows() -> None:
    """With coins, for every trace, limit and beginning; of a draw among all places it is not so."""
    generator = random.Random(0)
    drawn_otherwise = 0
    for row in range(40):
        pieces = generator.choices([".", "\n", "a", " b", "1"], k=40)
        whole = boundaries(pieces, gap=2)
        for count in (1, 3, 40):
            cuts = flip(whole, count, 0.4, "row", row)
            for length in range(1, 40):
                begun = boundaries([*pieces[:length], *generator.choices([".", "a"], k=20)], gap=2)
                known = [place for place in begun if place <= length]
                assert [place for place in flip(begun, count, 0.4, "row", row) if place <= length] == [
                    place for place in cuts if place <= length
                ]
                assert flip(known, count, 0.4, "row", row) == [place for place in cuts if place <= length]
            drawn_otherwise += draw(whole, 1, row) != draw(whole[:-1], 1, row)
    assert drawn_otherwise > 5


def test_coins_fall_as_often_as_they_should_and_apart() -> None:
    tosses = [flip(range(100), 100, 0.3, "row", row) for row in range(200)]
    mean = sum(map(len, tosses)) / 20_000
    assert abs(mean - 0.3) < 4 * (0.3 * 0.7 / 20_000) ** 0.5
    pairs = sum(2 in each and 3 in each for each in tosses) / 200
    assert abs(pairs - 0.09) < 4 * (0.09 * 0.91 / 200) ** 0.5
    assert flip(range(9), 3, 1.0) == [0, 1, 2] and flip([], 3, 1.0) == []
