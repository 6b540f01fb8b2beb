"""The options of a multiple-choice question, in the ways that tables hold them, and which of them is right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from tasks.faults import Fault

GOLD = ("label", "index", "text")
"""How a table may say which option is right: by its label, its number from 0, or its text."""
_HEADING = re.compile(r"\b(?:options|choices)\s*:", re.IGNORECASE)
_LABEL = re.compile(r"(?:^|(?<=[\s,;(]))([A-Z])\s*[:.)]\s*")


@dataclass(frozen=True, slots=True)
class Choices:
    """The texts of the options, and the labels that the table has for them."""

    texts: Sequence[str]
    labels: Sequence[str]

    def letter(self, gold: Any, how: str) -> str:
        """A, B, … for the option that `gold` says is right, in one of the ways of `GOLD`. Raises `Fault`."""
        said = str(gold).strip()
        if how == "index":
            number = int(said) if said.isascii() and said.isdigit() else -1
        else:
            of_all = list(self.labels if how == "label" else self.texts)
            number = of_all.index(said) if said in of_all else -1
        if not 0 <= number < len(self.texts):
            raise Fault("its answer is none of its options")
        return ascii_uppercase[number]

    def behind(self, question: str) -> str:
        """The question with a lettered line for each option, where it does not list them behind `Options:` already."""
        if self._listed(question):
            return question
        lines = (f"{letter}. {text}" for letter, text in zip(ascii_uppercase, self.texts, strict=False))
        return "\n".join([question, *lines])

    def _listed(self, question: str) -> bool:
        headings = list(_HEADING.finditer(question))
        place = headings[-1].end() if headings else -1
        for text in self.texts:
            if place < 0:
                return False
            place = question.find(text, place)
        return place >= 0


def read(value: Any) -> Choices | None:
    """The options in a cell: a list of texts, a mapping with the lists `text` and `label`, or text that has them in it.

    In a text, they follow the last `Options:` or `Choices:`, each behind its letter, in order from A. None where a
    problem has no options. Raises `Fault` for anything else.
    """
    if isinstance(value, str):
        return _in_text(value)
    texts, labels = (value.get("text"), value.get("label")) if isinstance(value, Mapping) else (value, None)
    if texts is None:
        return None
    if not isinstance(texts, list) or not all(isinstance(each, str | int | float) for each in texts):
        raise Fault("its options are no list of texts")
    if not texts:
        return None
    if len(texts) > len(ascii_uppercase):
        raise Fault(f"it has more than {len(ascii_uppercase)} options")
    if labels is None:
        labels = ascii_uppercase[: len(texts)]
    if len(labels) != len(texts):
        raise Fault("it has other labels than options")
    return Choices([str(each).strip() for each in texts], [str(each).strip() for each in labels])


def _in_text(text: str) -> Choices | None:
    headings = list(_HEADING.finditer(text))
    if not headings:
        return None
    starts: list[re.Match[str]] = []
    for found in _LABEL.finditer(text, headings[-1].end()):
        if found[1] == ascii_uppercase[len(starts) : len(starts) + 1]:
            starts.append(found)
    if len(starts) < 2:
        return None
    ends = [*(each.start() for each in starts[1:]), len(text)]
    texts = [text[each.end() : end].strip().rstrip(",;(").strip() for each, end in zip(starts, ends, strict=True)]
    return Choices(texts, ascii_uppercase[: len(texts)])
