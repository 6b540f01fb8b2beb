"""How the recurrent reasoners of a run refine their answers: curves over the alignments, and boards on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

from markupsafe import Markup

from pipelines.report import plots
from pipelines.report.plots import Line
from pipelines.report.run import StageView
from pipelines.stages.recur import CURVES_FILE


@dataclass(frozen=True, slots=True)
class Cell:
    """`state`: `wrong`, or `given` where the question has it already, or `right`."""

    text: str
    state: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A board at one alignment."""

    alignment: int
    rows: Sequence[Sequence[Cell]]

    @property
    def wrong(self) -> int:
        return sum(cell.state == "wrong" for row in self.rows for cell in row)


@dataclass(frozen=True, slots=True)
class Refinement:
    """What is shown of the reasoners of a run."""

    accuracy: Markup
    change: Markup
    boards: Sequence[Sequence[Grid]]
    """Of the first reasoner; each board at alignments 1, 2, 4, … and the last."""
    name: str
    trained: int
    """Its number of alignments in training."""


def read_refinement(stages: Sequence[StageView]) -> Refinement | None:
    """What the `recur` stages that were judged on validation data have left; None where none has."""
    found = {}
    for stage in stages:
        path = stage.directory / CURVES_FILE
        if stage.kind == "recur" and path.is_file():
            found[stage.name] = json.loads(path.read_text(encoding="utf-8"))
    if not found:
        return None
    name, first = next(iter(found.items()))
    trained = first["segments"]
    return Refinement(
        accuracy=Markup(_accuracy(found, trained)),
        change=Markup(_change(found)),
        boards=[_grids(board) for board in first["boards"]],
        name=name,
        trained=trained,
    )


def _accuracy(found: Mapping[str, Any], trained: int) -> str:
    title = "Share of boards that are right at each alignment"
    return plots.lines(_lines(found, "accuracy", 100), title, "alignment", "% of boards right", mark=trained)


def _change(found: Mapping[str, Any]) -> str:
    title = "Change of the estimate at each update"
    return plots.lines(_lines(found, "change"), title, "update", "relative change", logarithmic=True)


def _lines(found: Mapping[str, Any], what: str, times: float = 1) -> list[Line]:
    """A curve of each reasoner, numbered from 1; what is not known is left out."""
    drawn = []
    for name, each in found.items():
        known = {place: times * value for place, value in enumerate(_weights(each)[what], 1) if value is not None}
        drawn.append(Line(name, list(known), list(known.values())))
    return [line for line in drawn if line.places]


def _weights(curves: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the weights that are evaluated: the chosen ones, else the averaged ones, else those of the last step."""
    found: Mapping[str, Any] = curves["curves"]
    return next(found[name] for name in ("best", "averaged", "raw") if name in found)


def _grids(board: Mapping[str, Any]) -> list[Grid]:
    question, answer, *said = ("".join(text.split()) for text in (board["question"], board["answer"], *board["said"]))
    side = isqrt(len(question))
    width = side if side * side == len(question) else len(question)
    grids = []
    for number in sorted({1, len(said), *(2**power for power in range(len(said).bit_length()))}):
        if number > len(said):
            continue
        cells = [_cell(*each) for each in zip(said[number - 1], question, answer, strict=True)]
        grids.append(Grid(number, [cells[start : start + width] for start in range(0, len(cells), width)]))
    return grids


def _cell(said: str, asked: str, gold: str) -> Cell:
    return Cell(said, "wrong" if said != gold else "given" if gold == asked else "right")
