"""One normal form for short answers, used wherever two answers are compared for equality.

The rules are those of the VQA benchmark's evaluator (Antol et al. 2015, arXiv 1505.00468; `processPunctuation` and
`processDigitArticle` of `PythonEvaluationTools/vqaEvaluation/vqaEval.py` in GT-Vision-Lab/VQA), in this order:

1. Unicode NFKC, lower case, white space to single blanks.
2. A comma between two digits goes (`1,000` is `1000`); a full stop stays only in front of a digit (`2.5`).
3. Every other punctuation mark becomes a blank, but for the apostrophe and for a sign or a currency in front of a
   number.
4. Number words `zero` to `ten`, and `none`, become digits (`none` is 0).
5. The articles `a`, `an`, `the` go, unless nothing else is left (the option label `A` is an answer).

Three deliberate differences: VQA deletes a mark that touches a blank anywhere in the text and blanks it elsewhere, so
that there the same word may become `tshirt` or `t shirt`; here it is always a blank. VQA writes contractions out of a
table; here apostrophes go on both sides, which makes `dont` and `don't` equal without one. VQA also blanks the sign
of a number; here `-3` is not `3`.
"""

from __future__ import annotations

import functools
import re
import unicodedata

_DIGITS = {
    word: str(value)
    for value, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})

_APOSTROPHES = re.compile(r"['’‘`´]")
_MOST_ACCENTS = 30
"""In a row; UAX #15 allows as many in a stream. Bringing a longer row into order takes time with its square."""
DIGIT_COMMA = re.compile(r"(?<=\d),(?=\d)")
_FULL_STOP = re.compile(r"\.(?!\d)")
_SIGN = re.compile(r"(?<!\w)[-−](?=\.?\d)")
_MARKS = re.compile(r"[^\w\s.$€£%°\x00]|_")


def normalise(text: str) -> str:
    """The normal form of a short answer; empty when there is nothing to compare.

    Idempotent: `normalise(normalise(x)) == normalise(x)`.
    """
    text = _APOSTROPHES.sub("", unicodedata.normalize("NFKC", _bounded(text)).lower().replace("\x00", " "))
    text = DIGIT_COMMA.sub("", text)
    text = _FULL_STOP.sub(" ", text)
    text = _MARKS.sub(" ", _SIGN.sub("\x00", text)).replace("\x00", "-")
    words = [_DIGITS.get(word, word) for word in text.split()]
    return " ".join([word for word in words if word not in _ARTICLES] or words)


def _bounded(text: str) -> str:
    """The text without the accents of a row that come after the first `_MOST_ACCENTS`."""
    if text.isascii():
        return text
    kept, row = [], 0
    for sign in text:
        row = row + 1 if _is_accent(sign) else 0
        if row <= _MOST_ACCENTS:
            kept.append(sign)
    return "".join(kept)


@functools.lru_cache(maxsize=4096)
def _is_accent(sign: str) -> bool:
    """Whether it is reordered among its neighbours. Some signs are not, but decompose into ones that are."""
    return unicodedata.combining(unicodedata.normalize("NFKD", sign)[0]) > 0
