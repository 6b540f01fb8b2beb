"""Which problems of a suite a model has been trained on, as far as texts and images show."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from engines.base import EngineError
from rewards.normalise import DIGIT_COMMA, normalise
from tasks.problem import Problem

WORDS = 13
"""Words in a row that two texts share by chance seldom enough (arXiv 2005.14165, appendix C)."""
SAME_TEXT = "same text"
SAME_IMAGE = "same image"
SAME_BOTH = "same text and image"
SHARED_WORDS = f"{WORDS} words in a row"


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """What a model was trained on in one row: its texts (a question, an answer, a turn) and the image's path."""

    id: str
    texts: Sequence[str]
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Overlap:
    """`found`: problem -> reason -> the first training row that it was found in.

    `exact_only`: problems in which no 13 words in a row are their own, so that only a whole text can be found again.
    `unreadable`: images, of problems and of rows, that could not be looked at.
    """

    rows: int
    problems: int
    found: Mapping[str, Mapping[str, str]]
    exact_only: int
    unreadable: int

    @property
    def counts(self) -> Mapping[str, int]:
        """Problems per reason. One problem may have several."""
        return Counter(reason for reasons in self.found.values() for reason in reasons)


def overlap(rows: Iterable[TrainingRow], problems: Sequence[Problem]) -> Overlap:
    """Looks for the problems in the training rows. Words are compared in their normal form, images by their pixels.

    Words in a row count where they belong to the problems of one cluster: what several clusters share is the wording
    of the task. The text of a problem with an image is evidence only together with the image, since the same question
    is asked of many images.
    """
    texts: dict[str, list[Problem]] = defaultdict(list)
    images: dict[str, list[Problem]] = defaultdict(list)
    unreadable: set[str] = set()
    asked = [_compared(problem.question) for problem in problems]
    for problem, text in zip(problems, asked, strict=True):
        if text:
            texts[text].append(problem)
        if problem.image is not None and (pixels := _pixels(problem.image, unreadable)):
            images[pixels].append(problem)
    phrases = _own_phrases(problems, asked)
    found: dict[str, dict[str, str]] = {problem.id: {} for problem in problems}
    number = 0
    for row in rows:
        number += 1
        pixels = _pixels(row.image, unreadable) if row.image is not None and images else None
        for reason, problem in _matches(row, pixels, texts, images, phrases):
            found[problem.id].setdefault(reason, row.id)
    searchable = {problem.id for each in phrases.values() for problem in each}
    return Overlap(
        rows=number,
        problems=len(problems),
        found={problem: reasons for problem, reasons in found.items() if reasons},
        exact_only=len(found) - len(searchable),
        unreadable=len(unreadable),
    )


def _matches(
    row: TrainingRow,
    pixels: str | None,
    texts: Mapping[str, Sequence[Problem]],
    images: Mapping[str, Sequence[Problem]],
    phrases: Mapping[str, Sequence[Problem]],
) -> Iterator[tuple[str, Problem]]:
    shown = images.get(pixels, ()) if pixels else ()
    for problem in shown:
        yield SAME_IMAGE, problem
    for text in map(_compared, row.texts):
        for problem in texts.get(text, ()):
            if problem.image is None:
                yield SAME_TEXT, problem
            elif problem in shown:
                yield SAME_BOTH, problem
        for phrase in _phrases(text):
            for problem in phrases.get(phrase, ()):
                yield SHARED_WORDS, problem


def _own_phrases(problems: Sequence[Problem], asked: Sequence[str]) -> dict[str, list[Problem]]:
    """The phrases that occur in one cluster alone, with the problems that have them."""
    holders: dict[str, list[Problem]] = defaultdict(list)
    for problem, text in zip(problems, asked, strict=True):
        for phrase in set(_phrases(text)):
            holders[phrase].append(problem)
    return {
        phrase: having for phrase, having in holders.items() if len({each.cluster or each.id for each in having}) == 1
    }


_MARKS = ".,;:!?"


def _compared(text: str) -> str:
    """A question as it is looked for. Operators and empty cells, unlike the marks of a sentence, tell two apart."""
    tokens = text.replace("−", "-").lower().split()
    before = ["", *tokens]
    kept = [each for each, last in zip(tokens, before, strict=False) if each.strip(_MARKS) or not _is_word(last)]
    return " ".join(
        normalise(" ".join(run)) if words else " ".join(map(_number, run)) for words, run in groupby(kept, _is_word)
    )


def _is_word(token: str) -> bool:
    return any(map(str.isalpha, token))


def _number(token: str) -> str:
    """Without what a sentence adds to it; a sign stays as it is."""
    if not any(map(str.isdigit, token)):
        return token
    return DIGIT_COMMA.sub("", token).rstrip(_MARKS)


def _phrases(text: str) -> Iterator[str]:
    """Of words that are text for the most part: the digits of two puzzles are alike by chance."""
    words = text.split()
    for start in range(len(words) - WORDS + 1):
        phrase = words[start : start + WORDS]
        if 2 * sum(map(_is_word, phrase)) > WORDS:
            yield " ".join(phrase)


def _pixels(path: str, unreadable: set[str]) -> str | None:
    found = _pixel_sha(path)
    if found is None:
        unreadable.add(path)
    return found


@functools.lru_cache(maxsize=65536)
def _pixel_sha(path: str) -> str | None:
    """Of what is seen, so that an image that was saved anew without loss is the same."""
    from engines.rendering import open_image

    try:
        image = open_image(path)
    except EngineError:
        return None
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
