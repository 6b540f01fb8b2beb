"""The forms in which a completion may state its answer: each a function from the text to the answer, or None.

None of them guesses, and none takes more time than in proportion to the text, whatever the text. But for yes and no,
each gives a piece of the text as it stands there.
"""

from __future__ import annotations

import functools
import re
import string
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from rewards.answer import final_answer, last_boxed, last_tagged
from rewards.normalise import normalise

Form: TypeAlias = Callable[[str, str, Sequence[str]], str | None]
"""(text behind the reasoning, gold answer, labels of the options) → the answer, None where there is none.

Of the gold answer only its form may be used. The first line of the docstring says what the form is.
"""

YES_NO = frozenset({"yes", "no"})
LABELS = tuple("ABCDEFGHIJ")
"""Of the options of a problem that names none."""

_CUE = re.compile(r"\banswer(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE)
_MARKED_CUE = re.compile(r"\banswer[*_`]*(?:\s+is\b[\s*_`]*:?|\s*:)", re.IGNORECASE)  # **Answer**: 5
_EMPHASIS = f"*_`{string.whitespace}"
_HASH = re.compile(r"(?<!#)####(?!#)[^\S\n]*+(?=\S)")
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_])(?:(?<![)\]}])[-−])?(?:[0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]+)?|(?<!\.)\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]+(?![0-9A-Za-z])|/[0-9]+)?"
)
_GSM8K_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_GSM8K_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")

_REASONS = frozenset({"because", "since", "as", "is"})
_WORD_TOO = re.compile(r"[aAiI]|[0-9]+")
_WORD = re.compile(r"[^\S\n]*([^\W_]*)")

_BLANKS = re.compile(r"[\s|\[\](),;'\"│║┃]+")
_FRAME = re.compile(r"[\s|+=─━═┌┐└┘├┤┬┴┼╔╗╚╝╠╣╦╩╬│║┃-]+")
_CELL = re.compile(r"-?[0-9]{1,3}|[A-Za-z._#*@]")
_UNBROKEN = re.compile(r"[0-9._#SGo]{2,}")
_LONE_ROW = 16
"""Cells from which on an unbroken line is a grid of its own: those of the smallest sudoku."""

_MARK = re.compile(r"\s*(?:[-•*]\s+|[0-9]+[.)]\s+)?(?:[\s*_`$]|\\[(\[])*")
_SIGNS = re.compile(r"(?:[0-9.+*/^=×·÷−–(){}\s$-]|\\(?:[dt]?frac|times|cdot|div|left|right))+")
_OPERATION = re.compile(r"[0-9][-+*/^×·÷−–]+[0-9]|\\(?:[dt]?frac|times|cdot|div)")
_GROUPING = re.compile(r"[\s(){}$]+")


def auto(text: str, gold: str, options: Sequence[str]) -> str | None:
    """All of the text, or where the gold answer is yes or no `yes_no`; flexible: of what follows the last cue."""
    if normalise(gold) in YES_NO:
        return yes_no(text, gold, options)
    return text.strip() if normalise(text) else None


def auto_flexible(text: str, gold: str, options: Sequence[str]) -> str | None:
    """`auto` of what follows the last `answer is` or `answer:`, of all of the text where there is none."""
    found = _last(_CUE, text)
    return auto(text[found.end() :] if found else text, gold, options)


def whole(text: str, gold: str, options: Sequence[str]) -> str | None:
    """All of the text."""
    return text.strip() or None


def yes_no(text: str, gold: str, options: Sequence[str]) -> str | None:
    """Yes or no where the text begins with it, as a whole word."""
    first = normalise(text).partition(" ")[0]
    return first if first in YES_NO else None


def boxed(text: str, gold: str, options: Sequence[str]) -> str | None:
    r"""What the last \boxed{…} holds."""
    return _stripped(last_boxed(text))


def behind_hashes(text: str, gold: str, options: Sequence[str]) -> str | None:
    """What follows the last #### on its line."""
    found = _last(_HASH, text)
    return text[found.end() :].partition("\n")[0].strip() if found else None


def answer_tag(text: str, gold: str, options: Sequence[str]) -> str | None:
    """What the last <answer>…</answer> holds."""
    return _stripped(last_tagged(text))


def cue(text: str, gold: str, options: Sequence[str]) -> str | None:
    """What follows the last `answer is` or `answer:`, without emphasis around it."""
    found = _last(_MARKED_CUE, text)
    return _stripped(text[found.end() :].strip(_EMPHASIS)) if found else None


def option(text: str, gold: str, options: Sequence[str]) -> str | None:
    """One of the problem's labels, right behind the last `answer is` or `answer:`, or with nothing beside it.

    An answer in a tag or a box is looked at alone. A label that may be a word as well (A, I, 1), or is not written as
    the problem writes it, needs brackets or no word behind it. Two labels (B or C) are no answer.
    """
    labels = tuple(options) or LABELS
    lone, stated, another = _label_patterns(labels)
    final = final_answer(text) or ""
    if alone := lone.fullmatch(final):
        return alone["label"]
    behind = _last(_MARKED_CUE, final)
    found = stated.match(final, behind.end()) if behind else None
    if found is None or another.match(final, found.end()):
        return None
    label = found["label"]
    doubtful = label not in labels or _WORD_TOO.fullmatch(label)
    word = _WORD.match(final, found.end())
    if doubtful and not found["closed"] and word and word[1] and word[1].lower() not in _REASONS:
        return None
    return label


def last_number(text: str, gold: str, options: Sequence[str]) -> str | None:
    """The last number: whole, with commas for thousands, decimal, with an exponent, or a fraction such as 3/4.

    An answer in a tag or a box is looked at alone.
    """
    found = _last(_NUMBER, final_answer(text) or "")
    return found[0] if found else None


def gsm8k_strict(text: str, gold: str, options: Sequence[str]) -> str | None:
    """The number behind the first `#### `, as lm-eval's filter strict-match of gsm8k has it."""
    found = _GSM8K_STRICT.search(text)
    return found[1] if found else None


def gsm8k_flexible(text: str, gold: str, options: Sequence[str]) -> str | None:
    """The last run of digits, dollars, points and commas, as lm-eval's filter flexible-extract of gsm8k has it."""
    found = _last(_GSM8K_FLEXIBLE, text)
    return found[0] if found else None


def grid(text: str, gold: str, options: Sequence[str]) -> str | None:
    """The last block of lines with equally many cells.

    Cells are whole numbers, letters and the signs . _ # * @ between blanks, bars, commas or brackets; or digits and the
    signs of a maze side by side. A line that is all frame may stand within. One line alone counts from 16 cells side by
    side on. An answer in a tag or a box is looked at alone.
    """
    text = final_answer(text) or ""
    block: tuple[int, int] | None = None
    start, width, rows = 0, 0, 0
    for begin, line in _lines(text):
        cells, unbroken = _cells(line)
        if cells:
            if cells != width:
                start, width, rows = begin, cells, 0
            rows += 1
            if rows > 1 or (unbroken and cells >= _LONE_ROW):
                block = start, begin + len(line)
        elif not line or not _FRAME.fullmatch(line):
            width = 0
    return _stripped(text[slice(*block)]) if block else None


def expression(text: str, gold: str, options: Sequence[str]) -> str | None:
    """The last line that is arithmetic, such as (3 + 4) * 5 = 35; what ends in a colon may stand before it.

    An answer in a tag or a box is looked at alone.
    """
    for _, line in reversed(list(_lines(final_answer(text) or ""))):
        behind = _last(_MARKED_CUE, line)
        found = line[max(behind.end() if behind else 0, line.rfind(":") + 1) :]
        if mark := _MARK.match(found):
            found = found[mark.end() :]
        for closing in ("\\)", "\\]", ""):
            found = found.rstrip(" \t*_`$.").removesuffix(closing)
        if _SIGNS.fullmatch(found) and _OPERATION.search(_GROUPING.sub("", found)):
            return found.strip()
    return None


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "auto": auto,
        "whole": whole,
        "yes_no": yes_no,
        "boxed": boxed,
        "hash": behind_hashes,
        "answer_tag": answer_tag,
        "cue": cue,
        "option": option,
        "last_number": last_number,
        "gsm8k_strict": gsm8k_strict,
        "gsm8k_flexible": gsm8k_flexible,
        "grid": grid,
        "expression": expression,
    }
)
"""By name. `auto` is the one that strict and flexible extraction read differently."""


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _stripped(found: str | None) -> str | None:
    return (found or "").strip() or None


@functools.lru_cache(maxsize=1024)
def _label_patterns(labels: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A label with nothing beside it; one that stands at a place; a further one behind it."""
    before = r"(?:[\s*_`\"'$(\[{<:]|\\[a-z]{1,10}\{)*"
    label = "|".join(re.escape(each) for each in sorted(labels, key=len, reverse=True))
    boundary = r"(?![^\W_]|['’]\w|-\w|[.,]\d|%)"
    named = rf"{before}(?:(?:the|option|choice|letter)\b{before})?(?P<label>{label}){boundary}"
    return (
        re.compile(rf"{named}[\s*_`\"'$)\]}}>.,:;!]*", re.IGNORECASE),
        re.compile(rf"{named}(?P<closed>[*_`\"'$)\]}}>]*)", re.IGNORECASE),
        re.compile(rf"\s*(?:[,/&](?:\s*(?:or|and)\b)?|(?:or|and)\b){before}(?:{label}){boundary}"),
    )


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Where each line begins, and the line without blanks at its end."""
    begin = 0
    for line in text.splitlines(keepends=True):
        yield begin, line.rstrip()
        begin += len(line)


def _cells(line: str) -> tuple[int, bool]:
    """How many cells a row of a grid has, 0 for another line; and whether they stand side by side."""
    parts = _BLANKS.sub(" ", line).split()
    if len(parts) == 1 and _UNBROKEN.fullmatch(parts[0]):
        return len(parts[0]), True
    if len(parts) > 1 and all(_CELL.fullmatch(part) for part in parts):
        return len(parts), False
    return 0, False
