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
from rewards.maths import as_number
from rewards.normalise import normalise
from rewards.text import Completion, text_of

_LONE = re.compile(r"[(\[]?\s*([A-Z])\s*[)\].:]*", re.IGNORECASE)
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
    A letter alone is that of an option, also where another option's text is that letter.
    """
    return [
        _chosen(row, completion, gold, (choices[row] if choices else None) or ())
        for row, (completion, gold) in enumerate(zip(completions, answer, strict=True))
    ]


def choice_or_value(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    answer: Sequence[str | None],
    choices: Sequence[Sequence[str] | None] | None = None,
    precision: Sequence[float | None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """For data with both kinds of questions: `choice` where a problem has `choices`; else the value of its gold answer.

    Numbers are compared as numbers, rounded to `precision` decimals where there is one, all else as by `exact_match`.
    """
    return [
        _chosen(row, completion, gold, choices[row] or ())
        if choices and choices[row]
        else _valued(row, completion, gold, precision[row] if precision else None)
        for row, (completion, gold) in enumerate(zip(completions, answer, strict=True))
    ]


def _chosen(row: int, completion: Completion, gold: str | None, options: Sequence[str]) -> float | None:
    normal = [normalise(option) for option in options]
    wanted = _option(gold or "", normal)
    if wanted is None:
        return _no_gold(row)
    found = _option(final_answer(text_of(completion)) or "", normal)
    if found is None:
        note(row, "unparsed")
    return float(found == wanted)


def _valued(row: int, completion: Completion, gold: str | None, precision: float | None) -> float | None:
    if gold is None or not (wanted := normalise(gold)):
        return _no_gold(row)
    goal = as_number(gold)
    if goal is None:
        return float(_short(row, completion) == wanted)
    value = as_number(final_answer(text_of(completion)) or "")
    if value is None:
        note(row, "unparsed")
        return 0.0
    if precision is None:
        return float(value == goal)
    return float(round(value, int(precision)) == round(goal, int(precision)))


def _option(text: str, options: Sequence[str]) -> int | None:
    """The number of the option that a text names: by its letter alone, by its text, or by its letter behind a cue."""
    if options and (lone := _LONE.fullmatch(text.strip())):
        number = ord(lone[1].upper()) - ord("A")
        if number < len(options):
            return number
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
