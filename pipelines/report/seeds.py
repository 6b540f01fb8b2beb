"""The page that puts the seeds of one recipe together: arms, their intervals, and each seed's own difference."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eval.compare import ArmOverSeeds, Evaluated, across_seeds
from eval.suite import CompareError
from eval.trial import OUTCOMES, TrialError, read
from pipelines.errors import RunError
from pipelines.report import plots
from pipelines.report.page import render
from pipelines.report.plots import Bar
from pipelines.report.run import RunView, StageView
from pipelines.report.triads import FilterMeans, Triads, filter_means, read_triads


def render_seeds(directory: Path, runs: Sequence[RunView]) -> str:
    """The whole HTML page.

    Raises:
        RunError: a seed has no finished evaluation, or the seeds were evaluated differently or have different arms.
    """
    try:
        arms = combine(runs)
    except (CompareError, TrialError) as error:
        raise RunError(f"{directory}: {error}") from error
    control = next(arm.arm for arm in arms if arm.comparison is None)
    evaluation = _evaluation(runs[0])[1]
    return render(
        "seeds.html.j2",
        title=directory.resolve().name,
        directory=directory.resolve().name,
        runs=runs,
        seeds=[run.name.removeprefix("seed-") for run in runs],
        arms=arms,
        control=control,
        evaluation=evaluation,
        outcomes=_outcomes(runs),
        outcome_names=OUTCOMES,
        audits=[each for each in _filters(runs) if each.kept is not None],
        plots={
            "accuracy": Markup(_accuracy_plot(arms)),
            "difference": Markup(_difference_plot(arms, control)) if len(arms) > 1 else None,
        },
    )


def combine(runs: Sequence[RunView], control: str | None = None) -> list[ArmOverSeeds]:
    """Every checkpoint name over the seeds, against `control`: by default the evaluation's own, else the first one."""
    arms: dict[str, list[Evaluated]] = {}
    for run in runs:
        stage, result = _evaluation(run)
        settings = {key: value for key, value in result["suite"].items() if key != "digest"}
        for checkpoint in result["checkpoints"]:
            trials = list(read(stage.directory / checkpoint["file"]))
            label = f"{run.name}/{checkpoint['label']}"
            arms.setdefault(checkpoint["label"], []).append(Evaluated(label, settings, trials))
    names = list(arms)
    compared = _evaluation(runs[0])[1]["comparisons"]
    own = [each["b"] for each in compared if "control" in each["roles"]]
    return across_seeds(arms, control or [names[0], *own][-1])


def _outcomes(runs: Sequence[RunView]) -> dict[str, Counter[str]]:
    """Checkpoint -> how its answers fell out, added up over seeds."""
    added: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        for checkpoint in _evaluation(run)[1]["checkpoints"]:
            added[checkpoint["label"]].update(checkpoint["outcomes"])
    return added


def _filters(runs: Sequence[RunView]) -> list[FilterMeans]:
    """Every filter that all seeds have, in the order of the chain."""
    found: dict[str, list[Triads]] = {}
    for run in runs:
        for stage in run.of_kind("filter"):
            if (triads := read_triads(stage.directory)) is not None:
                found.setdefault(stage.name, []).append(triads)
    return [filter_means(name, each) for name, each in found.items() if len(each) == len(runs)]


def _evaluation(run: RunView) -> tuple[StageView, Mapping[str, Any]]:
    for stage in reversed(run.stages):
        if (result := stage.evaluation) is not None:
            return stage, result
    raise RunError(f"{run.directory}: no finished evaluation; run the recipe again to go on")


def _accuracy_plot(arms: Sequence[ArmOverSeeds]) -> str:
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
    return plots.forest(bars, "Mean accuracy of each arm over its seeds; the table has the numbers", "accuracy, %")


def _difference_plot(arms: Sequence[ArmOverSeeds], control: str) -> str:
    bars = []
    for arm in arms:
        if arm.comparison is not None:
            estimate = arm.comparison.difference.estimate
            low, high = _percent(estimate.low), _percent(estimate.high)
            seeds = [100 * value for value in arm.per_seed_difference if value is not None]
            clear = low is not None and high is not None and (low > 0 or high < 0)
            bars.append(Bar(arm.arm, _percent(estimate.value), low, high, clear, seeds))
    title = f"Paired difference of each arm to {control}; the table has the numbers"
    return plots.forest(bars, title, "points", reference=(0.0, control))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
