"""easy-VQA: 5,000 drawn images of one coloured shape each, 48,248 questions, 13 answers, a fixed test split.

The data come inside the package `easy-vqa` (MIT, Victor Zhou); only its files are read, its code is never imported.
The package's own training images are split once more: `validation` is held out of `train` by a hash of the image's
number, so that choices can be made without looking at `test`.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from functools import cache, lru_cache
from pathlib import Path

from tasks import packages
from tasks.draw import uniform
from tasks.glance import Glance, of_texts
from tasks.problem import Picture, Problem, Rows, TaskError

SPLITS = ("train", "validation", "test")
_VALIDATION_SHARE = 1 / 8
_SHAPES = ("circle", "rectangle", "triangle")
_COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
_YES_NO = re.compile(
    r"(?:(?:is|does) (?:there|the image) ?(?P<not>not )?(?:contain )?an? (?P<a>\w+)(?P<shape_a> shape)?"
    r"(?: in the image)?"
    r"|is (?P<no>no|a) (?P<b>\w+)(?P<shape_b> shape)? present)\?"
)
_OPEN = re.compile(
    r"what (?:(?P<shape>shape (?:is in the image|does the image contain|is present)"
    r"|is the (?P<colour_given>\w+) shape)"
    r"|(?:color is|is the color of) the (?P<named>shape|circle|rectangle|triangle))\?"
)


def check(split: str) -> str | None:
    """Raises `TaskError` for an unknown split, and where the package is missing."""
    if split not in SPLITS:
        raise TaskError(f"easy-vqa has no split {split!r}; it has {', '.join(SPLITS)}")
    _data()
    return None


@cache
def count(split: str) -> int:
    """How many images a split has."""
    return sum(_belongs(int(path.stem), split) for path in (_data() / _folder(split) / "images").glob("*.png"))


@cache
def glance(split: str) -> Glance:
    """Images, questions and their lengths."""
    check(split)
    rows = json.loads((_data() / _folder(split) / "questions.json").read_text())
    asked = [(question, answer) for question, answer, image in rows if _belongs(image, split)]
    return of_texts(asked, len(asked), count(split))


def load(split: str) -> Rows:
    """The questions of a split, grouped by image, and its images. Raises `TaskError` for an unknown split."""
    check(split)
    folder = _folder(split)
    directory = _data() / folder
    images = f"{directory / 'images'}{os.sep}"  # text, because a Path for each of 34,000 questions takes long
    problems = []
    for number, (question, answer, image) in enumerate(json.loads((directory / "questions.json").read_text())):
        if not _belongs(image, split):
            continue
        cluster = f"{folder}-{image}"
        path = f"{images}{image}.png"
        problems.append(Problem(f"{folder}-q{number}", question, answer, path, cluster, kind(question)))
    problems.sort(key=lambda problem: int(problem.cluster.rpartition("-")[2]))
    pictures = {p.cluster: Picture(p.cluster, p.image) for p in problems if p.image}
    return Rows(problems, tuple(pictures.values()))


@lru_cache(1024)  # the data ask 107 different ones
def kind(question: str) -> str:
    """The question's type: `yes/no`, `shape` or `colour`; `other` where it is none of the data's own patterns."""
    if _YES_NO.fullmatch(question):
        return "yes/no"
    match = _OPEN.fullmatch(question)
    if match is None:
        return "other"
    return "colour" if match["named"] else "shape"


def truth(question: str, image_id: str) -> str | None:
    """The true answer to any question of the data's patterns about an image, for audits only.

    Empty, so that no answer equals it, when the question presupposes what the image does not show ("what color is the
    circle?" of a triangle). None when it is not one of the data's patterns or their answers do not tell.
    """
    shapes, colours = _possible()[image_id]
    if match := _YES_NO.fullmatch(question):
        word, needs_colour = match["a"] or match["b"], bool(match["shape_a"] or match["shape_b"])
        if word not in (_COLOURS if needs_colour else _SHAPES):
            return None
        possible = colours if needs_colour else shapes
        if word in possible and len(possible) > 1:
            return None
        negated = bool(match["not"]) or match["no"] == "no"
        return "yes" if (word in possible) != negated else "no"
    if match := _OPEN.fullmatch(question):
        asked, given = (colours, shapes) if match["named"] else (shapes, colours)
        named = match["named"] or match["colour_given"]
        presupposed = named not in (None, "shape")
        if presupposed and named not in given:
            return ""
        if (presupposed and len(given) > 1) or len(asked) > 1:
            return None
        return next(iter(asked))
    return None


@lru_cache(1)
def _possible() -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """Image id → the shapes and the colours that its questions leave possible (nearly always one of each)."""
    shapes: dict[str, frozenset[str]] = defaultdict(lambda: frozenset(_SHAPES))
    colours: dict[str, frozenset[str]] = defaultdict(lambda: frozenset(_COLOURS))
    for folder in ("train", "test"):
        for question, answer, image in json.loads((_data() / folder / "questions.json").read_text()):
            words = question.rstrip("?").split()
            negated = "not" in words or "no" in words
            excluded = answer in ("yes", "no") and (answer == "no") != negated
            key = f"{folder}-{image}"
            for word in (*words, answer):
                possible, every = (shapes, _SHAPES) if word in _SHAPES else (colours, _COLOURS)
                if word in every:
                    possible[key] &= frozenset(every) - {word} if excluded else {word}
    return {key: (shapes[key], colours[key]) for key in shapes.keys() | colours.keys()}


def _folder(split: str) -> str:
    return "test" if split == "test" else "train"


@cache  # ten questions share an image
def _belongs(image: int, split: str) -> bool:
    """Whether an image of the split's folder is of the split: a part of the training images is held out."""
    return split == "test" or (uniform("easy-vqa validation", image) < _VALIDATION_SHARE) == (split == "validation")


def _data() -> Path:
    return packages.folder("easy_vqa", "easy-vqa") / "data"
