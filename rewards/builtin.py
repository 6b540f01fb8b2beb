"""Rewards of short answers: equal texts, multiple choice, the agreement of VQA's annotators.

Each is a function `reward(prompts, completions, **columns) -> list[float | None]`, the signature of TRL's trainers, so
that the same function trains and evaluates. None means "could not be scored" and is never 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rewards.answer import final_answer
from rewards.contract import note
from rewards.normalise import normalise
from rewards.text import Completion, text_of

_LETTER = re.compile(
    r"(?:^|\b(?:answer|option|choice)\b(?:\s+is)?)\s*:?\s*[(\[]?\s*([A-Z])\s*(?:[)\].:,]|$)", re.IGNORECASE
)


def exact_match(
    prompts: Sequence[Any], completions: Sequence[Completion], *, answer: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """1 where the answer equals the gold answer after `rewards.normalise`, else 0.

    Args:
        completions: one per prompt.
        answer: the gold answers; None, or one that normalises to nothing, cannot be scored and gives None.

    Raises:
        ValueError: `completions` and `answer` differ in length.
    """
    return [
        _no_gold(row) if gold is None or not (wanted := normalise(gold)) else float(_short(row, each) == wanted)
        for row, (each, gold) in enumerate(zip(completions, answer, strict=True))
    ]


def vqa_accuracy(
    prompts: Sequence[Any], completions: Sequence[Completion], *, answers: Sequence[Sequence[str]], **columns: Any
) -> list[float | None]:
    """The accuracy of the VQA benchmark (Antol et al. 2015): of ten annotators' answers, three equal ones make it 1.

    The mean of min(1, agreeing / 3) over all sets that leave one annotator out, which is the benchmark's own average.
    """
    return [
        _no_gold(row) if not given else _agreement(_short(row, each), [normalise(answer) for answer in given])
        for row, (each, given) in enumerate(zip(completions, answers, strict=True))
    ]


def choice(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    answer: Sequence[str | None],
    choices: Sequence[Sequence[str] | None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1 where the letter of the right option, or its text, is the answer, else 0. Gold: a letter, or an option's text.

    `choices` are the options of each problem in the order of their letters; without them only letters are understood.
    """
    scores: list[float | None] = []
    for row, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        options = [normalise(option) for option in (choices[row] if choices else None) or ()]
        wanted = _option(gold or "", options)
        if wanted is None:
            scores.append(_no_gold(row))
            continue
        found = _option(final_answer(text_of(completion)) or "", options)
        if found is None:
            note(row, "unparsed")
        scores.append(float(found == wanted))
    return scores


def _option(text: str, options: Sequence[str]) -> int | None:
    """The number of the option that a text names, by its text or by its letter."""
    if options and options.count(normalise(text)) == 1:
        return options.index(normalise(text))
    # Single blanks: the pattern would try every way to part a long run of them.
    letters = {letter.upper() for letter in _LETTER.findall(" ".join(text.split()))}
    if len(letters) != 1:
        return None
    number = ord(letters.pop()) - ord("A")
    return number if not options or number < len(options) else None


def _agreement(found: str, given: Sequence[str]) -> float:
    if len(given) == 1:
        return float(found == given[0])
    agreeing = given.count(found)
    # Leaving one out: an annotator who agrees leaves one less.
    without = [min(1.0, (agreeing - (answer == found)) / 3) for answer in given]
    return sum(without) / len(without)


def _short(row: int, completion: Completion) -> str:
    found = normalise(final_answer(text_of(completion)) or "")
    if not found:
        note(row, "unparsed")
    return found


def _no_gold(row: int) -> float | None:
    note(row, "no gold")
    return None
