"""The value of an arithmetic expression that a model wrote: parsed and computed here, never run as code."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

MOST_CHARACTERS = 200
MOST_DIGITS = 12
"""Of one number: larger ones do not occur in the puzzles."""

_LATEX = (
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-zA-Z])|[×·∙]"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])|÷"), "/"),
    (re.compile(r"[−–]"), "-"),
    (re.compile(r"\\(?:left|right|[,;! ])|\$"), ""),
    # Only between operands, and never behind a bare 0: `0x10` is one number, in another notation.
    (re.compile(r"(?<=[\d)])(?<!\b0)\s*[xX]\s*(?=[\d(])"), "*"),
)
_ALLOWED = re.compile(r"[0-9+\-*/() \t\n]*")
_OPERATIONS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class NoExpression(ValueError):
    """The text is no arithmetic of whole numbers with + - * / and parentheses, or has no value."""


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """The value of an expression, and the numbers it is made of, in order.

    Text from the first `=` on is left out; LaTeX's and typographic signs are read as + - * /, and so
    is an `x` between operands. Exponents do not exist.

    Raises:
        NoExpression: also where it is longer than `MOST_CHARACTERS`, has too long a number, or divides by zero.
    """
    if len(text) > 4 * MOST_CHARACTERS:
        raise NoExpression("too long")
    text = text.partition("=")[0]
    for pattern, sign in _LATEX:
        text = pattern.sub(sign, text)
    text = text.strip()
    if len(text) > MOST_CHARACTERS or not _ALLOWED.fullmatch(text) or "**" in text or "//" in text:
        raise NoExpression("not of whole numbers, + - * / and parentheses alone")
    if re.search(rf"\d{{{MOST_DIGITS + 1}}}", text):
        raise NoExpression("a number is too long")
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise NoExpression("not an expression") from None
    numbers: list[int] = []
    return _value(tree.body, numbers), numbers


def _value(node: ast.expr, numbers: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        numbers.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, numbers)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _value(node.left, numbers), _value(node.right, numbers)
        try:
            return _OPERATIONS[type(node.op)](left, right)
        except ZeroDivisionError:
            raise NoExpression("divides by zero") from None
    raise NoExpression("neither a number nor one of + - * /")
