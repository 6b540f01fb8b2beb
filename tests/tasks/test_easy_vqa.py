"""The splits are disjoint, the test split is the official one, and the audit knows every labelled answer."""

from __future__ import annotations

import importlib.util
import itertools

import pytest

from tasks import easy_vqa
from tasks.problem import TaskError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("easy_vqa") is None, reason="easy-vqa is not installed")


def test_splits_are_disjoint_and_whole() -> None:
    rows = {split: easy_vqa.load(split) for split in easy_vqa.SPLITS}
    assert len(rows["test"].problems) == 9_673 and len(rows["test"].pictures) == 1_000
    assert sum(len(r.problems) for r in rows.values()) == 48_248
    pictures = {split: {p.id for p in r.pictures} for split, r in rows.items()}
    assert sum(len(ids) for ids in pictures.values()) == len(set.union(*pictures.values())) == 5_000
    assert len(pictures["validation"]) / 4_000 == pytest.approx(1 / 8, abs=0.02)
    for split, r in rows.items():
        assert {p.cluster for p in r.problems} == pictures[split]
        assert {p.image for p in r.problems} == {p.path for p in r.pictures}
        assert len({p.id for p in r.problems}) == len(r.problems)
        assert r.dropped == ()
        # Questions of an image stand together, so that a slice by images is a slice of questions.
        clusters = [p.cluster for p in r.problems]
        assert sum(a != b for a, b in itertools.pairwise(clusters)) == len(pictures[split]) - 1


def test_the_audit_agrees_with_every_labelled_answer() -> None:
    problems = [p for split in easy_vqa.SPLITS for p in easy_vqa.load(split).problems]
    assert [p for p in problems if easy_vqa.truth(p.question, p.cluster) != p.answer] == []
    assert {p.kind for p in problems} == {"yes/no", "shape", "colour"}
    assert len({p.answer for p in problems}) == 13
    assert all((p.kind == "yes/no") == (p.answer in ("yes", "no")) for p in problems)


def test_the_audit_answers_questions_nobody_asked_and_refuses_those_without_an_answer() -> None:
    by_image: dict[str, dict[str, str]] = {}
    for p in easy_vqa.load("test").problems:
        by_image.setdefault(p.cluster, {})[p.question] = p.answer
    image, shape, colour = next(
        (image, asked["what shape is in the image?"], asked["what color is the shape?"])
        for image, asked in by_image.items()
        if {"what shape is in the image?", "what color is the shape?"} <= asked.keys()
    )
    other_shape = next(s for s in ("circle", "rectangle", "triangle") if s != shape)
    other_colour = next(c for c in ("black", "blue", "red") if c != colour)
    for question, answer in {
        f"is there a {shape}?": "yes",
        f"is there a {other_shape}?": "no",
        f"is there not a {shape}?": "no",
        f"is there not a {other_shape} in the image?": "yes",
        f"is no {other_shape} present?": "yes",
        f"is a {colour} shape present?": "yes",
        f"does the image not contain a {other_colour} shape?": "yes",
        f"what color is the {shape}?": colour,
        f"what is the {colour} shape?": shape,
        f"what color is the {other_shape}?": "",  # there is none
        f"what is the {other_colour} shape?": "",
        "is there a dragon?": None,
        "how many shapes are there?": None,
        "": None,
    }.items():
        assert easy_vqa.truth(question, image) == answer, question


def test_an_unknown_split_is_refused_with_the_known_ones() -> None:
    with pytest.raises(TaskError, match="no split 'dev'; it has train, validation, test"):
        easy_vqa.load("dev")
