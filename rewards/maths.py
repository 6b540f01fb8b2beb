"""Numbers and mathematical expressions: equal in value, whatever their form."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rewards.answer import final_answer
from rewards.contract import note
from rewards.pool import SECONDS, shared
from rewards.text import Completion, text_of

MOST_CHARACTERS = 1024
MOST_NESTING = 32
MOST_DIGITS = 128
MOST_EXPONENT = 1_000
MOST_FACTORIAL = 1_000
_WORKER = "rewards.maths_worker"

_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?", re.ASCII)
_DIGITS = re.compile(r"\d+")
_EXPONENT = re.compile(r"(?:\^|\*\*)\s*\{?\s*[-+(]?\s*(\d+)")
_FACTORIAL = re.compile(r"(\d+)\s*\}?\)?\s*!")
_TOWER = re.compile(r"(?:\^|\*\*)\s*(?:[{(][^{}()]*?|\w+\s*)(?:\^|\*\*)")
_BLANKS = re.compile(r"\\[,;!: ]|\s+")


def number(
    prompts: Sequence[Any], completions: Sequence[Completion], *, answer: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """1 where the answer is the gold number, else 0.

    `1,000.0`, `$1000` and `1000` are one number; of an answer with `####`, as in GSM8K, what follows counts.
    """
    return [
        _same_number(row, text_of(completion), gold)
        for row, (completion, gold) in enumerate(zip(completions, answer, strict=True))
    ]


def maths(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    answer: Sequence[str | None],
    seconds: float = SECONDS,
    **columns: Any,
) -> list[float | None]:
    """1 where the answer is mathematically equal to the gold answer, else 0; None where that could not be decided.

    Equal texts and plain numbers are compared here. All else goes to math-verify in a process that is killed after
    `seconds` (noted as `timeout`); what is too long, too deep or too large to be looked at is 0, noted as `too large`.
    """
    scores: list[float | None] = [0.0] * len(completions)
    hard: list[int] = []
    calls: list[tuple[str, str]] = []
    for row, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        found, wanted = _stated(text_of(completion)), after_cue(gold)
        if wanted is None or too_large(wanted):
            note(row, "no gold")
            scores[row] = None
        elif found is None:
            note(row, "unparsed")
        elif _plain(found) == _plain(wanted):
            scores[row] = 1.0
        elif (value := as_number(found)) is not None and (goal := as_number(wanted)) is not None:
            scores[row] = float(value == goal)
        elif too_large(found):
            note(row, "too large")
        else:
            hard.append(row)
            calls.append((wanted, found))
    if calls:
        from rewards.maths_worker import judge

        for row, verdict in zip(hard, shared(_WORKER).map(judge, calls, seconds), strict=True):
            scores[row] = _score_of(row, verdict.value or str(verdict.reason))
    return scores


def as_number(text: str) -> Fraction | None:
    """The value of a plain decimal number, with or without separators, currency or a final full stop; else None."""
    text = _BLANKS.sub("", text.replace("\\$", "").replace("$", "").replace("−", "-")).rstrip(".")
    if len(text) > MOST_DIGITS or not re.search("[0-9]", text) or not _NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace(",", ""))


def after_cue(gold: str | None) -> str | None:
    """What follows `####` in a gold answer, the whole where there is none; None where nothing is left."""
    return None if gold is None else gold.rpartition("####")[2].strip() or None


def _stated(text: str) -> str | None:
    """The final answer of a completion; what follows the last `####` of it where that is a line, and so no heading."""
    found = final_answer(text)
    line = after_cue(found)
    return found if line is None or "\n" in line else line


def too_large(text: str) -> bool:
    """Whether an expression is beyond the limits that keep its evaluation small. Nothing is evaluated to find out."""
    if len(text) > MOST_CHARACTERS:
        return True
    depth = deepest = 0
    for sign in text:
        depth += (sign in "({[") - (sign in ")}]")
        deepest = max(deepest, depth)
    return (
        deepest > MOST_NESTING
        or any(len(run) > MOST_DIGITS for run in _DIGITS.findall(text))
        or any(int(each) > MOST_EXPONENT for each in _EXPONENT.findall(text))
        or any(int(each) > MOST_FACTORIAL for each in _FACTORIAL.findall(text))
        or _TOWER.search(text) is not None
    )


def _same_number(row: int, text: str, gold: str | None) -> float | None:
    wanted = after_cue(gold)
    goal = None if wanted is None else as_number(wanted)
    if goal is None:
        note(row, "no gold")
        return None
    value = as_number(_stated(text) or "")
    if value is None:
        note(row, "unparsed")
    return float(value == goal)


def _score_of(row: int, judgement: str) -> float | None:
    if judgement in ("same", "different"):
        return float(judgement == "same")
    note(row, judgement)
    return 0.0 if judgement == "unparsed" else None


def _plain(text: str) -> str:
    return _BLANKS.sub("", text.strip().strip("$").rstrip("."))
