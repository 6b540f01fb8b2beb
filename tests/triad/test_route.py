"""Types by rule, templates cut off, boxes compared by their overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfrefine.triad.route import boxes, overlap, route, strip_fixed

SUFFIX = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("Describe this image.", "A cat sits on a mat.", "caption"),
        ("Please describe the image in detail.", "A cat.", "caption"),
        ("Give a short caption.", "yes", "caption"),
        ("Describe the region [0.10, 0.20, 0.30, 0.40].", "a cat", "caption"),
        ("Where is the cat?", "[0.10, 0.20, 0.30, 0.40]", "region"),
        ("What is in [0,0,1,1]?", "a cat", "region"),
        ("What is it?\nA. cat\nB. dog", "A", "choice"),
        ("What is it?\nA) cat\nB) dog\nC) cow", "B", "choice"),
        (f"Which? {LETTER}", "C", "choice"),
        ("Is it a cat?", "Yes.", "yes_no"),
        ("Is it a cat?", "false", "yes_no"),
        ("Is it a cat?", "yes, it is", "short"),
        ("What is it?", "a cat", "short"),
        ("What is it?", "A cat. It sleeps.", "long"),
        ("What is it?", "word " * 31, "long"),
        ("What is it?", "word " * 30, "short"),
        ("How much is it?", "2.50", "short"),
    ],
)
def test_types(question: str, answer: str, kind: str) -> None:
    assert route(question, answer) == kind


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (f"What is it? {SUFFIX}", "What is it?"),
        (f"What is it?\n{SUFFIX.lower()}", "What is it?"),
        (f"What is it?\nA. cat\nB. dog\n{LETTER}", "What is it?\nA. cat\nB. dog"),
        ("Please provide the bounding box coordinate of the region this sentence describes: a cat", "a cat"),
        ("Please provide a short description for this region: [0.1, 0.2, 0.3, 0.4]", "[0.1, 0.2, 0.3, 0.4]"),
        (SUFFIX, ""),
        ("nothing fixed here", "nothing fixed here"),
    ],
)
def test_the_fixed_request_is_cut_off(text: str, rest: str) -> None:
    assert strip_fixed(text) == rest


@given(st.lists(st.one_of(st.sampled_from([SUFFIX, LETTER, "answer the question ", "using"]), st.text(max_size=6))))
def test_stripping_twice_is_stripping_once(parts: list[str]) -> None:
    once = strip_fixed("".join(parts))
    assert strip_fixed(once) == once


def test_boxes_are_read_from_a_text() -> None:
    assert boxes("from [0.10, 0.20, 0.30, 0.40] to [ 0,0 , 1.0,1 ]") == [(0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1)]
    assert boxes("[0.1, 0.2, 0.3]") == boxes("[a, b, c, d]") == boxes("[0.1, 0.2, 0.3, 0.4, 0.5]") == []
    assert boxes("at [100, 37, 255, 48.5]") == [(100, 37, 255, 48.5)]  # in pixels, as some models write them


def test_overlap_of_shifted_squares_is_the_closed_form() -> None:
    for shift in np.linspace(0, 1.5, 31):
        shared = max(0.0, 1 - shift)
        assert overlap((0, 0, 1, 1), (shift, 0, 1 + shift, 1)) == pytest.approx(shared / (2 - shared))


GRID = st.tuples(*[st.integers(0, 8)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@given(GRID, GRID)
def test_overlap_counts_cells(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    def cells(box: tuple[int, int, int, int]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    union = cells(a) | cells(b)
    expected = len(cells(a) & cells(b)) / len(union) if union else 0.0
    assert overlap(a, b) == overlap(b, a) == pytest.approx(expected)
