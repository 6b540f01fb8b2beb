"""Finding the answer in a completion. What is not found is `None`, never guessed.

Two extractions run on the same completion and are shown side by side; the gap between them is the share of answers
that are right but not in the form the prompt asked for.

- Reasoning up to the last `</think>` is left out. The chat template may have opened the block, so the opening tag is
  optional; a block that is opened and never closed leaves nothing to extract (`unfinished`).
- **Strict**: the completion is the answer. Short answer: the whole text. Yes/no: the text begins with the word.
- **Flexible**: the answer after the last cue (`answer is`, `answer:`) of the text; strict where there is no cue.
- Yes and no are whole words: there is no `no` in `notice`. "There is no circle" does not begin with either word and
  carries no cue, so it is unparsed: to read it as "no" would be a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.normalise import normalise

VERSION = 1
"""Changes whenever the same completion may give another answer."""

YES_NO = frozenset({"yes", "no"})
_CLOSE = "</think>"
_OPEN = "<think>"
_CUE = re.compile(r"\banswer(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Extraction:
    """The answers found; `unfinished` when the reasoning block was never closed."""

    strict: str | None
    flexible: str | None
    unfinished: bool = False


def extract(completion: str, gold: str) -> Extraction:
    """The answers that a completion gives to a question whose gold answer is `gold`.

    Of the gold answer only its form is used: whether the question wants yes or no, or a short answer.
    """
    _, closed, rest = completion.rpartition(_CLOSE)
    if _OPEN in rest:
        return Extraction(None, None, unfinished=True)
    final = rest if closed else completion
    cues = list(_CUE.finditer(final))
    read = _yes_or_no if normalise(gold) in YES_NO else _short
    strict = read(final)
    return Extraction(strict, read(final[cues[-1].end() :]) if cues else strict)


def _short(text: str) -> str | None:
    return text.strip() if normalise(text) else None


def _yes_or_no(text: str) -> str | None:
    first = normalise(text).partition(" ")[0]
    return first if first in YES_NO else None
