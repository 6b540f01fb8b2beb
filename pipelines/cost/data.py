"""The rows of a data section and their lengths in tokens, as a plan can know them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.cost import assumed
from tasks.glance import Glance, glance


@dataclass(frozen=True, slots=True)
class Data:
    """`rows` with questions, `pictures`; `question` and `answer` are mean tokens of the texts alone.

    `cells`: of a grid. `notes`: what was assumed.
    """

    rows: float
    pictures: float
    question: float
    answer: float
    cells: int | None
    notes: tuple[str, ...]

    looked: bool = True
    """Whether it could be looked at; else a row of it has an image where the model has eyes."""


def look(name: str, section: Mapping[str, Any]) -> Data:
    """`name`: how the section is called in notes; `section`: task, split, skip, take and the task's own keys."""
    return _data(name, glance(**section))


def _data(name: str, found: Glance) -> Data:
    taken = []
    rows = found.problems
    if rows is None and found.pictures is None:
        rows = assumed.ROWS
        taken.append(f"{rows:,} rows")
    if found.question is None and found.cells is None and rows is not None:
        taken.append(f"{assumed.QUESTION} + {assumed.ANSWER} tokens a row")
    return Data(
        found.pictures or 0.0 if rows is None else rows,
        found.pictures or 0.0,
        _tokens(found.question, found.cells, assumed.QUESTION),
        _tokens(found.answer, found.cells, assumed.ANSWER),
        found.cells,
        (f"{name} has {' with '.join(taken)}",) if taken else (),
        (found.problems is not None and found.question is not None) or found.cells is not None,
    )


def _tokens(characters: float | None, cells: int | None, otherwise: float) -> float:
    if cells is not None:
        return float(cells)
    return otherwise if characters is None else max(1.0, characters / assumed.CHARACTERS)
