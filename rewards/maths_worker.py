"""What runs in the killable workers: math-verify, without its own timeouts, which are signals and do not hold."""

from __future__ import annotations

import logging
from typing import Any, Literal

from math_verify import LatexExtractionConfig, parse, verify

logging.getLogger("math_verify").setLevel(logging.ERROR)  # It says at each call that its timeout is off.

Judgement = Literal["same", "different", "unparsed", "no gold"]


def judge(gold: str, answer: str) -> Judgement:
    """Whether `answer` means the same as `gold`. Both are LaTeX or plain expressions, without surrounding text."""
    wanted = _parsed(gold)
    if not wanted:
        return "no gold"
    found = _parsed(answer)
    if not found:
        return "unparsed"
    return "same" if verify(wanted, found, timeout_seconds=None) else "different"


def _parsed(expression: str) -> list[Any]:
    # LaTeX alone: the reader of plain expressions hands text to sympy's parser, which runs what it reads as Python.
    text = expression.strip().strip("$")
    return list(parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None))
