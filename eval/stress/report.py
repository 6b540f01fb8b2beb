"""What trials say of a stress grid: accuracy at each cell, against the clean one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from eval.estimators import paired_over_problems
from eval.stats import DRAWS, Difference, Estimate, holm
from eval.stress.grid import CORNERS, Cell
from eval.summary import accuracy_of
from eval.tally import by_problem, tally
from eval.trial import Trial, TrialError


@dataclass(frozen=True, slots=True)
class CellResult:
    """`accuracy` (pass@1) at a cell; `difference`: less that of the clean cell, over problems that both could grade.

    `p_holm`: its p, adjusted for all cells. Both are None at the clean cell. `left_out`: problems of which one of the
    two has no graded trial; with too many of them the difference has no value.
    """

    scope: float
    severity: int
    accuracy: Estimate
    difference: Difference | None
    p_holm: float | None
    left_out: int


@dataclass(frozen=True, slots=True)
class StressReport:
    """A grid's results. `corners`: `sparse-mild` and its like -> the cell. `bug`: what a drop at sparse-mild says."""

    label: str
    clean: CellResult
    cells: tuple[CellResult, ...]
    corners: Mapping[str, CellResult]
    bug: str | None

    def as_json(self) -> dict[str, Any]:
        """The report in JSON values; what is undefined is None with its reason."""
        return asdict(self)

    def text(self) -> str:
        """All of it in lines."""
        named = {(each.scope, each.severity): f" ({name})" for name, each in self.corners.items()}
        lines = [f"{self.label}, clean: {_told(self.clean.accuracy)}"]
        for each in self.cells:
            against = _told(each.difference.estimate) if each.difference else "none"
            place = f"scope {each.scope:g}, severity {each.severity}{named.get((each.scope, each.severity), '')}"
            lines.append(f"{place}: {_told(each.accuracy)}; less clean: {against}")
        return "\n".join([*lines, *([self.bug] if self.bug else [])])


def stress_report(cells: Sequence[tuple[Cell, Sequence[Trial]]], *, draws: int = DRAWS) -> StressReport:
    """The report of one checkpoint's trials at each cell of a grid.

    Sparse-severe and dense-mild should survive, dense-severe may fall. Raises `TrialError` where there is not one clean
    cell, a cell of the grid is missing or twice there, the cells have other problems, or there are several labels.
    """
    given = [cell for cell, _ in cells]
    clean = [trials for cell, trials in cells if cell.clean]
    others = sorted(((cell, trials) for cell, trials in cells if not cell.clean), key=lambda each: each[0])
    if len(clean) != 1:
        raise TrialError(f"a stress grid has one clean cell, with scope or severity 0, not {len(clean)}")
    scopes = sorted({cell.scope for cell, _ in others})
    severities = sorted({cell.severity for cell, _ in others})
    for cell in (Cell(*each) for each in product(scopes, severities)):
        if given.count(cell) != 1:
            raise TrialError(
                f"scope {cell.scope:g}, severity {cell.severity} is there {given.count(cell)} times, not once"
            )
    labels = sorted({trial.label for _, trials in cells for trial in trials})
    if len(labels) != 1:
        raise TrialError(f"a stress report is of one checkpoint's trials, not of {labels or 'none'}")
    if not others:
        raise TrialError("a stress grid has cells beside the clean one")
    made = [_result(cell, trials, clean[0], draws) for cell, trials in others]
    adjusted = holm([difference.p for _, _, difference, _ in made])
    results = tuple(
        CellResult(cell.scope, cell.severity, accuracy, difference, p, left_out)
        for (cell, accuracy, difference, left_out), p in zip(made, adjusted, strict=True)
    )
    found = {(each.scope, each.severity): each for each in results}
    ends = product((scopes[0], scopes[-1]), (severities[0], severities[-1]))
    corners = {name: found[place] for name, place in zip(CORNERS, ends, strict=True)}
    start = CellResult(0.0, 0, accuracy_of(clean[0], draws=draws), None, None, 0)
    return StressReport(labels[0], start, results, corners, _bug(corners["sparse-mild"]))


def _result(
    cell: Cell, trials: Sequence[Trial], clean: Sequence[Trial], draws: int
) -> tuple[Cell, Estimate, Difference, int]:
    here, there = by_problem(trials), by_problem(clean)
    if other := here.keys() ^ there.keys():
        where = f"scope {cell.scope:g}, severity {cell.severity}"
        raise TrialError(f"{where} and the clean cell have other problems: `{min(other)}` is in one alone")
    pairs = [(tally(here[problem]), tally(there[problem])) for problem in there]
    graded = [(a, b) for a, b in pairs if a.n and b.n]
    difference = paired_over_problems(
        [a.passes / a.n for a, _ in graded],
        [b.passes / b.n for _, b in graded],
        [b.cluster for _, b in graded],
        len(pairs),
        draws=draws,
    )
    return cell, accuracy_of(trials, draws=draws), difference, len(pairs) - len(graded)


def _bug(sparse_mild: CellResult) -> str | None:
    found = sparse_mild.difference
    if found is None or found.estimate.high is None or found.estimate.high >= 0:
        return None
    return f"a drop at sparse-mild ({_told(found.estimate)}) is a bug in model or prompt"


def _told(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"none ({estimate.reason})"
    interval = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval}"
