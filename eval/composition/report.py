"""What trials say of a composable split: accuracy by class, and the gaps between the classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eval.composition.files import Labels, read
from eval.composition.split import CLASSES
from eval.stats import DRAWS, Estimate, Floats, from_both, function_interval
from eval.summary import accuracy_of
from eval.tally import by_problem, tally
from eval.trial import Trial, TrialError

GAPS = {"iid - composable": ("iid", "composable"), "composable - blocked": ("composable", "blocked")}


@dataclass(frozen=True, slots=True)
class CompositionReport:
    """Accuracies (pass@1) and gaps, all with intervals over combinations: `clusters` of an estimate counts these.

    `graph`: the module graph in words, which all of it is with respect to. `by_modules`: accuracy of what is blocked,
    by the modules that block it, parted by commas. `missing`: problems of the split that have no trial. `ungraded`:
    trials that could not be graded.
    """

    label: str
    graph: tuple[str, ...]
    tied: bool
    accuracy: Mapping[str, Estimate]
    gaps: Mapping[str, Estimate]
    by_modules: Mapping[str, Estimate]
    missing: int
    ungraded: int
    warnings: tuple[str, ...]

    def text(self) -> str:
        """All of it in lines."""
        tied = ", with tied modules (an extension of the split)" if self.tied else ""
        return "\n".join(
            [
                f"{self.label}, with respect to this module graph{tied}:",
                *(f"  {line}" for line in self.graph),
                *(f"accuracy {kind}: {_told(each)}" for kind, each in self.accuracy.items()),
                *(f"gap {name}: {_told(each)}" for name, each in self.gaps.items()),
                *(f"blocked by {modules}: {_told(each)}" for modules, each in self.by_modules.items()),
                *(f"note: {warning}" for warning in self.warnings),
            ]
        )


def composition_report(trials: Sequence[Trial], split_json: Path, *, draws: int = DRAWS) -> CompositionReport:
    """The report of one checkpoint's trials of the test rows of a split.

    Raises:
        TaskError: the split cannot be read.
        TrialError: there is no trial, there are several labels, or a trial is of a problem that the split has not.
    """
    labels = read(split_json)
    names = sorted({trial.label for trial in trials})
    if len(names) != 1:
        raise TrialError(f"{split_json}: a report is of one checkpoint's trials, not of {names or 'none'}")
    if strange := [trial.problem_id for trial in trials if trial.problem_id not in labels.problems]:
        raise TrialError(f"{split_json}: the split has no test problem `{strange[0]}`, of which there is a trial")
    for trial in trials:
        if trial.prompt and labels.problems[trial.problem_id].question not in trial.prompt[-1]["content"]:
            raise TrialError(
                f"{split_json}: problem `{trial.problem_id}` was asked with another question than the split has; these "
                "answers are to another suite's problems"
            )
    # Problems of one combination stand or fall together, so combinations are drawn.
    drawn = [trial.model_copy(update={"cluster": labels.problems[trial.problem_id].combo}) for trial in trials]
    classes: dict[str, list[Trial]] = {kind: [] for kind in CLASSES}
    modules: defaultdict[str, list[Trial]] = defaultdict(list)
    for trial in drawn:
        label = labels.problems[trial.problem_id]
        classes[label.kind].append(trial)
        if label.blocked_by:
            modules[", ".join(label.blocked_by)].append(trial)
    accuracy = {kind: _accuracy(kind, each, labels, draws) for kind, each in classes.items()}
    missing = len(labels.problems.keys() - {trial.problem_id for trial in trials})
    ungraded = sum(trial.outcome == "ungraded" for trial in trials)
    return CompositionReport(
        label=names[0],
        graph=labels.graph,
        tied=labels.tied,
        accuracy=accuracy,
        gaps={name: _gap(name, classes, accuracy, draws) for name in GAPS},
        by_modules={name: accuracy_of(modules[name], draws=draws) for name in sorted(modules)},
        missing=missing,
        ungraded=ungraded,
        warnings=tuple(_warnings(missing, len(labels.problems), ungraded, len(trials))),
    )


def _accuracy(kind: str, trials: Sequence[Trial], labels: Labels, draws: int) -> Estimate:
    found = accuracy_of(trials, draws=draws)
    if kind == "blocked" and labels.covering:
        return replace(found, reason="the training combinations were chosen to cover all modules, so none is blocked")
    return found


def _gap(name: str, classes: Mapping[str, Sequence[Trial]], accuracy: Mapping[str, Estimate], draws: int) -> Estimate:
    """The difference of two classes' accuracies. Both have other combinations: it is not a paired one."""
    kinds = GAPS[name]
    for kind in kinds:
        if accuracy[kind].value is None:
            n = sum(accuracy[each].n for each in kinds)
            return Estimate(None, None, None, None, n, 0, None, reason=f"{kind}: {accuracy[kind].reason}")
    rows: list[tuple[float, float, float, float]] = []
    combos: list[str] = []
    for first, kind in zip((True, False), kinds, strict=True):
        for problem in map(tally, by_problem(classes[kind]).values()):
            if problem.n:
                share = problem.passes / problem.n
                rows.append((share, 1.0, 0.0, 0.0) if first else (0.0, 0.0, share, 1.0))
                combos.append(problem.cluster)
    return function_interval(
        rows,
        combos,
        _difference,
        "a class has no combination",
        alike=lambda flat: from_both(flat, accuracy[kinds[0]], accuracy[kinds[1]]),
        draws=draws,
    )


def _difference(means: Floats) -> Floats:
    """[D, 4] -> [D]: first column over second, less third over fourth; NaN where a class was not drawn."""
    with np.errstate(invalid="ignore"):
        gaps: Floats = means[:, 0] / means[:, 1] - means[:, 2] / means[:, 3]
    return gaps


def _warnings(missing: int, of: int, ungraded: int, trials: int) -> list[str]:
    found = [f"{missing} of {of} test problems have no trial"] if missing else []
    return found + ([f"{ungraded} of {trials} trials could not be graded"] if ungraded else [])


def _told(estimate: Estimate) -> str:
    size = f"n={estimate.n}, {estimate.clusters} combinations"
    if estimate.value is None:
        return f"none ({estimate.reason})"
    interval = "" if estimate.low is None else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return f"{estimate.value:.3f}{interval} ({size})"
