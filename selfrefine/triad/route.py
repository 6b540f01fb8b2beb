"""The type of a pair decides how its parts are compared (arXiv 2510.10487, sections 2.3, 4.2 and B.2)."""

from __future__ import annotations

import re
from typing import Literal

PairType = Literal["caption", "region", "choice", "yes_no", "short", "long"]

_NUMBER = r"\s*(?:\d+(?:\.\d+)?|\.\d+)\s*"
_BOX = re.compile(rf"\[{_NUMBER}(?:,{_NUMBER}){{3}}\]")
_CAPTION = re.compile(r"^(?:please )?(?:describe|caption|give a (?:short |brief )?(?:description|caption))\b", re.I)
_OPTIONS = re.compile(r"(?m)^\s*\(?[A-D][.):]\s+\S.*\n(?:.*\n)?\s*\(?B?[A-D][.):]\s+\S")
_LETTER_REQUEST = re.compile(r"answer with the option'?s? letter", re.I)
_FIXED = re.compile(
    r"\s*(?:answer the question using a single word or phrase\.?"
    r"|answer with the option'?s letter from the given choices directly\.?"
    r"|please provide (?:the bounding box coordinate of the region this sentence describes"
    r"|a short description for this region)[:.]?)\s*",
    re.I,
)
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
_LONG_WORDS = 30


def strip_fixed(text: str) -> str:
    """The text without the fixed request of a template, which every pair of a type shares. Stripping twice = once."""
    previous = None
    while previous != text:
        previous, text = text, _FIXED.sub(" ", text).strip()
    return text


def boxes(text: str) -> list[tuple[float, float, float, float]]:
    """All `[x1, y1, x2, y2]` in a text, four numbers each."""
    found = []
    for match in _BOX.finditer(text):
        a, b, c, d = (float(number) for number in match.group().strip("[] ").split(","))
        found.append((a, b, c, d))
    return found


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes; 0 where disjoint or empty."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0


def route(question: str, answer: str) -> PairType:
    """By rule, in this order: template, box, lettered options, yes/no, length of the answer."""
    if _CAPTION.match(question.strip()):
        return "caption"
    if _BOX.search(question) or _BOX.search(answer):
        return "region"
    if _LETTER_REQUEST.search(question) or _OPTIONS.search(question):
        return "choice"
    if answer.strip().rstrip(".").casefold() in ("yes", "no", "true", "false"):
        return "yes_no"
    sentences = len(_SENTENCE_END.findall(answer.strip()))
    return "long" if sentences > 1 or len(answer.split()) > _LONG_WORDS else "short"
