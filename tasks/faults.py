"""Rows that cannot be used: counted by what is wrong with them, and some of each kind named."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

NAMED = 3
"""Rows that are named of each kind of fault."""


class Fault(ValueError):
    """What is wrong with a row. The message is a few words without the row's place."""


@dataclass(frozen=True, slots=True)
class _Found:
    reason: str
    place: int | str
    rows: int
    after: int


class Faults:
    """Kinds of faults, and where they are. `unit` is what places are: a `row` or `line` by its number, a `file`."""

    def __init__(self, unit: str = "row") -> None:
        self._unit = unit
        self._found: list[_Found] = []

    def add(self, reason: str, place: int | str, rows: int = 1, after: int = 0) -> None:
        """Counts one more row, or so many, with such a fault. `after`: how many good rows came before it."""
        self._found.append(_Found(reason, place, rows, after))

    @property
    def dropped(self) -> tuple[tuple[str, int], ...]:
        """(what is wrong and where, how many), as `Rows.dropped` has it."""
        return self._counted(self._found)

    def between(self, start: int, end: int | None) -> tuple[tuple[str, int], ...]:
        """`dropped`, of the rows behind good row `start` - 1 and before good row `end` - 1, from 0; to the last where
        `end` is None. Slices that follow each other share none."""
        return self._counted(each for each in self._found if start <= each.after and (end is None or each.after < end))

    def _counted(self, found: Iterable[_Found]) -> tuple[tuple[str, int], ...]:
        places: dict[str, list[int | str]] = defaultdict(list)
        rows = Counter[str]()
        for each in found:
            places[each.reason].append(each.place)
            rows[each.reason] += each.rows
        return tuple((self._named(reason, where), rows[reason]) for reason, where in sorted(places.items()))

    def _named(self, reason: str, places: list[int | str]) -> str:
        listed = ", ".join(map(str, islice(places, NAMED))) + (", …" if len(places) > NAMED else "")
        return f"{reason} ({self._unit}{'s' if len(places) > 1 else ''} {listed})"
