"""The same problems made harder, cell by cell of a stress grid, put to the checkpoints of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from eval.stress.grid import Grid
from pipelines.asking import ask
from pipelines.checkpoints import Checkpoint
from pipelines.files import whole

if TYPE_CHECKING:
    from eval.compare import Evaluated
    from eval.grading import Grader
    from eval.stress.stress import Stressed as Harder
    from eval.suite import Suite
    from eval.trial import Trial
    from pipelines.context import StageContext
    from tasks.problem import Problem

STRESS_FILE = "stress.jsonl"


class StressSettings(BaseModel):
    """What a stress grid touches, and how strongly."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scopes: tuple[float, ...] = Field(
        Grid().scopes, description="shares of the input that are touched, above 0 up to 1"
    )
    severities: tuple[int, ...] = Field(Grid().severities, description="how strongly, from 1")
    of: Literal["text", "image", "board"] | None = Field(
        None, description="what is touched; unless given, the board of a puzzle, else the image, else the text"
    )

    def grid(self) -> Grid:
        """Raises `TaskError` for scopes and severities that make no grid."""
        return Grid(self.scopes, self.severities)


@dataclass(frozen=True, slots=True)
class Stressed:
    """Checkpoint -> its report (`eval.stress.report`), in JSON values; problems left out by reason; flagged drops."""

    reports: Mapping[str, Any]
    dropped: Mapping[str, int]
    warnings: Sequence[str]


def made_harder(context: StageContext, settings: StressSettings, problems: Sequence[Problem]) -> Harder:
    """The problems of all cells. Raises `TaskError` where they cannot be stressed as asked."""
    from eval.stress.stress import stress_problems

    return stress_problems(problems, settings.grid(), context.seed, context.directory / "images", settings.of)


def put_under_stress(
    context: StageContext,
    made: Harder,
    found: Sequence[Checkpoint],
    suite: Suite,
    grader: Grader,
    results: Sequence[Evaluated],
    chunk: int,
) -> Stressed:
    """Asks every cell but the clean one, whose trials `results` has, and writes the trials of all cells."""
    from eval.stress.report import stress_report

    cells = [(cell, each) for cell, each in made.cells if not cell.clean]
    kept = {problem.id for cell, each in made.cells if cell.clean for problem in each}
    reports, warnings = {}, []
    with context.progress(sum(len(each) for _, each in cells) * len(found), "under stress") as bar:
        for checkpoint, result in zip(found, results, strict=True):
            clean = [trial for trial in result.trials if trial.problem_id in kept and trial.sample == 0]
            trials = [(cell, clean) for cell, _ in made.cells if cell.clean]
            for cell, each in cells:
                named = replace(suite, name=f"{suite.name}~{cell.scope:g}/{cell.severity}")
                part = f"{checkpoint.name}~{cell.scope:g}-{cell.severity}"
                trials.append((cell, ask(context, checkpoint, named, grader, each, 1, chunk, bar, part)))
            report = stress_report(trials)
            reports[checkpoint.name] = report.as_json()
            if report.bug:
                warnings.append(f"{checkpoint.name}: {report.bug}")
            _write(context.directory / checkpoint.name / STRESS_FILE, trials)
    return Stressed(reports, Counter(made.dropped), warnings)


def _write(place: Path, cells: Sequence[tuple[Any, Sequence[Trial]]]) -> None:
    from eval.trial import dump

    place.parent.mkdir(exist_ok=True)
    with whole(place) as path:
        lines = (
            dump(trial.model_copy(update={"stress": {"scope": cell.scope, "severity": cell.severity}})) + "\n"
            for cell, trials in cells
            for trial in trials
        )
        path.write_text("".join(lines), encoding="utf-8")
