from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from eval.overlap import SAME_BOTH, SAME_IMAGE, SAME_TEXT, SHARED_WORDS, TrainingRow, overlap
from tasks.problem import Problem

WORDING = "Using the numbers below once each, write an expression of the four operations whose value is"
STORY = (
    "Natalia baked {} trays of biscuits on Monday, sold half of them at the fair on Tuesday, and gave the rest to "
    "her neighbours who had helped"
)


def problems(*questions: str) -> list[Problem]:
    return [Problem(f"p{row}", question, "1") for row, question in enumerate(questions)]


def test_a_planted_row_is_found() -> None:
    """OpenRLHF/OpenRLHF#1089, TIGER-AI-Lab/MAmmoTH#11: test problems among the training rows."""
    suite = problems(*(f"What is {row} plus {row * row}?" for row in range(100)))
    rows = [TrainingRow(f"r{row}", (f"What is {row} times {row}?", "Let me see.")) for row in range(500)]
    assert overlap(rows, suite).found == {}
    rows[321] = TrainingRow("r321", ("Solve this.", "what is 42 plus  1,764"))
    found = overlap(rows, suite)
    assert found.found == {"p42": {SAME_TEXT: "r321"}}
    assert (found.rows, found.problems, found.counts) == (500, 100, {SAME_TEXT: 1})
    assert found.exact_only == 100  # All are shorter than 13 words.


def test_13_words_in_a_row_are_found_inside_a_longer_text() -> None:
    suite = problems(STORY.format(14), STORY.format(14).replace("Natalia baked", "Otto burnt"), "Short?")
    inside = f"Here is one more. {STORY.format(14).upper()}. How many?"
    found = overlap([TrainingRow("r", (inside,))], suite[:1])
    assert found.found == {"p0": {SHARED_WORDS: "r"}}
    twelve = " ".join(STORY.format(14).split()[:12])
    assert overlap([TrainingRow("r", (twelve,))], suite[:1]).found == {}
    # Of two problems alike, only the words that one has alone tell which was seen.
    both = overlap([TrainingRow("r", (inside,))], suite)
    assert set(both.found) == {"p0"} and both.exact_only == 1


def test_the_wording_of_a_task_is_no_overlap() -> None:
    suite = problems(*(f"{WORDING} {value}: 3 5 7" for value in range(20, 40)))
    rows = [TrainingRow(f"r{value}", (f"{WORDING} {value}: 1 2 8",)) for value in range(40, 90)]
    assert overlap(rows, suite).found == {}
    found = overlap([*rows, TrainingRow("leak", (f"Question: {WORDING} 33: 3 5 7",))], suite)
    assert found.found == {"p13": {SHARED_WORDS: "leak"}}


def test_problems_of_one_cluster_share_their_words() -> None:
    suite = [Problem(f"p{row}", f"{WORDING} 24: 3 5 7", "1", cluster="same") for row in range(2)]
    found = overlap([TrainingRow("r", (f"{WORDING} 24: 3 5 7 11",))], suite)
    assert found.found == {"p0": {SHARED_WORDS: "r"}, "p1": {SHARED_WORDS: "r"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        picture = Image.new("RGB", (8, 8), (40 * number, 0, 0))
        picture.save(tmp_path / f"{number}.png")
        picture.save(tmp_path / f"{number}-again.bmp")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


def test_images_are_compared_by_what_is_seen(folder: Path) -> None:
    asked = "what colour is the circle?"
    suite = [Problem(f"p{row}", asked, "red", str(folder / f"{row}.png"), f"image{row}") for row in range(2)]
    rows = [
        TrainingRow("text", (asked,)),  # The same question about no image is no leak.
        TrainingRow("other", (asked,), str(folder / "2.png")),
        TrainingRow("image", ("is it big?",), str(folder / "1-again.bmp")),
        TrainingRow("both", (asked, "red"), str(folder / "1.png")),
    ]
    found = overlap(rows, suite)
    assert found.found == {"p1": {SAME_IMAGE: "image", SAME_BOTH: "both"}}
    assert found.counts == {SAME_IMAGE: 1, SAME_BOTH: 1}


def test_what_cannot_be_read_is_counted(folder: Path) -> None:
    suite = [Problem("p", "?", "red", str(folder / "0.png")), Problem("q", "?", "red", str(folder / "broken.png"))]
    rows = [TrainingRow("a", (), str(folder / "broken.png")), TrainingRow("b", (), str(folder / "none.png"))]
    found = overlap(rows, suite)
    assert (found.found, found.unreadable, found.rows) == ({}, 2, 2)


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        ("What is 3 + 4?", "What is 3 * 4?"),
        ("1 - 2 + 6 =", "1 + 2 - 6 ="),
        ("_ 2 _ _\n_ _ _ 4", "2 _ _ _\n4 _ _ _"),
        ("5 . . 7", ". 5 7 ."),
        ("# . #\n. . #", "# # .\n# . ."),
        ("##.\n..#", "#..\n.##"),
        ("x > 1", "x < 1"),
    ],
)
def test_operators_and_empty_cells_tell_two_questions_apart(asked: str, other: str) -> None:
    suite = problems(asked)
    assert overlap([TrainingRow("other", (other,))], suite).found == {}
    assert overlap([TrainingRow("same", (f"  {asked} ",))], suite).found == {"p0": {SAME_TEXT: "same"}}


@pytest.mark.parametrize(
    ("asked", "copied"),
    [
        ("Hello, world! How many?", "hello , world ! how many ?"),
        ("A box holds 1,764 nails; what's half?", "a box holds 1764 nails, whats half"),
        ("What is 5 − 3?", "what is 5 - 3"),
        ('Is "two" (the word) a number?', "is 2 (the word) number"),
    ],
)
def test_the_marks_of_a_sentence_tell_nothing_apart(asked: str, copied: str) -> None:
    assert overlap([TrainingRow("same", (copied,))], problems(asked)).found == {"p0": {SAME_TEXT: "same"}}


def test_empty_texts_match_nothing() -> None:
    assert overlap([TrainingRow("r", ("", "?"))], problems("", "!")).found == {}
    assert overlap([], []).counts == {}
