"""The grid of a stress test: how much of an input is touched (scope), and how strongly (severity)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from tasks.problem import TaskError

CORNERS = ("sparse-mild", "sparse-severe", "dense-mild", "dense-severe")


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """`scope` from 0 to 1, `severity` from 0; where either is 0 a problem stays as it is."""

    scope: float
    severity: int

    @property
    def clean(self) -> bool:
        return not (self.scope and self.severity)


CLEAN = Cell(0.0, 0)


@dataclass(frozen=True, slots=True)
class Grid:
    """All of `scopes` by all of `severities`, without 0, and the clean cell. Raises `TaskError`.

    How far severity goes is said by what is stressed: `eval.stress.stress.MOST`.
    """

    scopes: tuple[float, ...] = (0.25, 0.5, 1.0)
    severities: tuple[int, ...] = (1, 2, 3)

    def __post_init__(self) -> None:
        for name, values, most in (("scopes", self.scopes, 1.0), ("severities", self.severities, float("inf"))):
            if len(values) < 2 or list(values) != sorted(set(values)) or not 0 < values[0] <= values[-1] <= most:
                end = " up to 1" if most == 1 else ""
                raise TaskError(f"stress: {name} are two or more rising numbers above 0{end}, not {list(values)}")

    def cells(self) -> list[Cell]:
        """The clean cell, then the others by scope."""
        return [CLEAN, *(Cell(*each) for each in product(self.scopes, self.severities))]
