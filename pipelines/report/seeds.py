"""The page that puts the seeds of one recipe together: arms, their intervals, and each seed's own difference."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from eval.compare import ArmOverSeeds, Evaluated, across_seeds
from eval.suite import CompareError
from eval.trial import OUTCOMES, TrialError
from pipelines.errors import RunError
from pipelines.evaluation import Stored
from pipelines.report import plots
from pipelines.report.measures import title_of
from pipelines.report.page import render
from pipelines.report.plots import Bar
from pipelines.report.run import RunView
from pipelines.report.triads import FilterMeans, Triads, filter_means, read_triads
from pipelines.report.warned import warned


@dataclass(frozen=True, slots=True)
class SuiteOverSeeds:
    """A suite. `outcomes`: checkpoint -> how its answers fell out, added up over seeds."""

    title: str
    arms: Sequence[ArmOverSeeds]
    problems: Mapping[str, int]
    partial: bool
    outcomes: Mapping[str, Counter[str]]
    accuracy: Markup
    difference: Markup | None

    @property
    def control(self) -> str:
        return next(arm.arm for arm in self.arms if arm.comparison is None)


def render_seeds(directory: Path, runs: Sequence[RunView]) -> str:
    """The whole HTML page.

    Raises:
        RunError: a seed has no finished evaluation, or the seeds were evaluated differently or have different arms.
    """
    suites = []
    for seeds in evaluations_of(runs):
        try:
            suites.append(_over_seeds(seeds, [run.name for run in runs]))
        except (CompareError, TrialError) as error:
            raise RunError(f"{directory}: {error}") from error
    return render(
        "seeds.html.j2",
        title=directory.resolve().name,
        directory=directory.resolve().name,
        runs=runs,
        seeds=[run.name.removeprefix("seed-") for run in runs],
        suites=suites,
        warned=warned(runs, named=True),
        several=len(suites) > 1,
        outcome_names=OUTCOMES,
        audits=[each for each in _filters(runs) if each.kept is not None],
    )


def evaluations_of(runs: Sequence[RunView]) -> list[list[Stored]]:
    """The evaluations that the first seed has, each of all seeds. Raises `RunError` where a seed lacks one."""
    for run in runs:
        if not run.evaluations:
            raise RunError(f"{run.directory}: no finished evaluation; run the recipe again to go on")
    found = []
    for first in runs[0].evaluations:
        seeds = [each for run in runs for each in run.evaluations if each.name == first.name]
        if len(seeds) < len(runs):
            raise RunError(f"{runs[0].directory.parent}: `{first.name}` is not finished for every seed; run it again")
        found.append(seeds)
    return found


def combine(seeds: Sequence[Stored], names: Sequence[str]) -> list[ArmOverSeeds]:
    """Every checkpoint name over the seeds, against the evaluation's own control, else the first one.

    Args:
        seeds: the same evaluation of each seed; `names` are those of the seeds' runs.
    """
    arms: dict[str, list[Evaluated]] = {}
    for name, stored in zip(names, seeds, strict=True):
        for each in stored.evaluated():
            arms.setdefault(each.label, []).append(replace(each, label=f"{name}/{each.label}"))
    own = [each["b"] for each in seeds[0].result["comparisons"] if "control" in each["roles"]]
    return across_seeds(arms, [next(iter(arms)), *own][-1])


def _over_seeds(seeds: Sequence[Stored], names: Sequence[str]) -> SuiteOverSeeds:
    result = seeds[0].result
    arms = combine(seeds, names)
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    for stored in seeds:
        for checkpoint in stored.result["checkpoints"]:
            outcomes[checkpoint["label"]].update(checkpoint["outcomes"])
    title = title_of(seeds[0])
    control = next(arm.arm for arm in arms if arm.comparison is None)
    return SuiteOverSeeds(
        title=title,
        arms=arms,
        problems=result["problems"],
        partial=result["partial"],
        outcomes=outcomes,
        accuracy=Markup(_accuracy_plot(title, arms)),
        difference=Markup(_difference_plot(title, arms, control)) if len(arms) > 1 else None,
    )


def _filters(runs: Sequence[RunView]) -> list[FilterMeans]:
    """Every filter that all seeds have, in the order of the chain."""
    found: dict[str, list[Triads]] = {}
    for run in runs:
        for stage in run.of_kind("filter"):
            if (triads := read_triads(stage.directory)) is not None:
                found.setdefault(stage.name, []).append(triads)
    return [filter_means(name, each) for name, each in found.items() if len(each) == len(runs)]


def _accuracy_plot(title: str, arms: Sequence[ArmOverSeeds]) -> str:
    bars = [
        Bar(
            arm.arm,
            _percent(arm.accuracy.value),
            _percent(arm.accuracy.low),
            _percent(arm.accuracy.high),
            strong=arm.comparison is not None,
            points=[100 * value for value in arm.per_seed if value is not None],
        )
        for arm in arms
    ]
    words = f"Mean accuracy of each arm on {title} over its seeds; the table has the numbers"
    return plots.forest(bars, words, "accuracy, %")


def _difference_plot(title: str, arms: Sequence[ArmOverSeeds], control: str) -> str:
    bars = []
    for arm in arms:
        if arm.comparison is not None:
            estimate = arm.comparison.difference.estimate
            low, high = _percent(estimate.low), _percent(estimate.high)
            seeds = [100 * value for value in arm.per_seed_difference if value is not None]
            clear = low is not None and high is not None and (low > 0 or high < 0)
            bars.append(Bar(arm.arm, _percent(estimate.value), low, high, clear, seeds))
    words = f"Paired difference of each arm to {control} on {title}; the table has the numbers"
    return plots.forest(bars, words, "points", reference=(0.0, control))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
