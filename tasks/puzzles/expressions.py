"""Which values whole numbers can be combined to by + - * /, each used once, found by going through all ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TypeAlias

Value: TypeAlias = int | Fraction
_Way: TypeAlias = tuple[str, int, Value, int, Value]
"""A sign, and the set of numbers and the value at either side of it."""


class Expressions:
    """All values that `numbers` give, and an expression for each.

    With `whole`, intermediate values are whole numbers of 0 or more, as in the game of countdown; else any fractions.
    A set of numbers is the sum of 2 to the power of each place, so it is larger than each of its parts.
    """

    def __init__(self, numbers: Sequence[int], whole: bool) -> None:
        self._numbers = tuple(numbers)
        self._all = (1 << len(numbers)) - 1
        self._ways: dict[int, dict[Value, _Way | None]] = {}
        for chosen in range(1, self._all + 1):
            if chosen & (chosen - 1) == 0:
                self._ways[chosen] = {self._numbers[chosen.bit_length() - 1]: None}
                continue
            found: dict[Value, _Way | None] = {}
            for left in _parts(chosen):
                for a in self._ways[left]:
                    for b in self._ways[chosen - left]:
                        for sign, value in _combined(a, b, whole):
                            found.setdefault(value, (sign, left, a, chosen - left, b))
            self._ways[chosen] = found

    @property
    def values(self) -> Sequence[Value]:
        """The values of all numbers together, sorted."""
        return sorted(self._ways[self._all])

    def written(self, value: Value) -> str | None:
        """An expression with this value that uses each number once; None where there is none."""
        return self._written(self._all, value) if value in self._ways[self._all] else None

    def _written(self, chosen: int, value: Value) -> str:
        way = self._ways[chosen][value]
        if way is None:
            return str(value)
        sign, left, a, right, b = way
        sides = (self._written(left, a), self._written(right, b))
        return f" {sign} ".join(side if side.isdigit() else f"({side})" for side in sides)


def _parts(chosen: int) -> Iterator[int]:
    """The sets that are a part of `chosen`, neither empty nor the whole."""
    part = (chosen - 1) & chosen
    while part:
        yield part
        part = (part - 1) & chosen


def _combined(a: Value, b: Value, whole: bool) -> Iterator[tuple[str, Value]]:
    # Both orders of a pair come by: what is the same in either is made once.
    if a >= b:
        yield "+", a + b
        yield "*", a * b
    if a >= b or not whole:
        yield "-", a - b
    if b and (not whole or a % b == 0):
        quotient = Fraction(a, b)
        yield "/", quotient.numerator if quotient.denominator == 1 else quotient
