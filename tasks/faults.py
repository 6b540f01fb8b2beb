"""Rows that cannot be used: counted by what is wrong with them, and some of each kind named."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice

NAMED = 3
"""Rows that are named of each kind of fault."""


class Fault(ValueError):
    """What is wrong with a row. The message is a few words without the row's place."""


class Faults:
    """Kinds of faults, and where they are. `unit` is what places are: a `row` or `line` by its number, a `file`."""

    def __init__(self, unit: str = "row") -> None:
        self._unit = unit
        self._places: dict[str, list[int | str]] = defaultdict(list)
        self._rows: Counter[str] = Counter()

    def add(self, reason: str, place: int | str, rows: int = 1) -> None:
        """Counts one more row, or so many, with such a fault."""
        self._places[reason].append(place)
        self._rows[reason] += rows

    @property
    def dropped(self) -> tuple[tuple[str, int], ...]:
        """(what is wrong and where, how many), as `Rows.dropped` has it."""
        return tuple(
            (self._named(reason, places), self._rows[reason]) for reason, places in sorted(self._places.items())
        )

    def _named(self, reason: str, places: list[int | str]) -> str:
        listed = ", ".join(map(str, islice(places, NAMED))) + (", …" if len(places) > NAMED else "")
        return f"{reason} ({self._unit}{'s' if len(places) > 1 else ''} {listed})"
