"""Which of two checkpoints is better, on the same problems: never by two overlapping intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eval.stats import DRAWS, Difference, Estimate, Floats, holm, mean_interval, paired_difference
from eval.suite import CompareError, differing_keys
from eval.trial import Trial

SEEDS_FOR_A_CLAIM = 3


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A checkpoint's trials and the settings of the suite (`Suite.settings`) that they were made under."""

    label: str
    settings: Mapping[str, Any]
    trials: Sequence[Trial]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`a` against `b`. `left_out`: problems that one side could not grade. `p_holm`: p adjusted for its family."""

    a: str
    b: str
    difference: Difference
    left_out: int
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class ArmOverSeeds:
    """One arm's result over all seeds.

    `accuracy` and `comparison` average over seeds per problem, then draw clusters: their intervals speak of other
    problems, and hold for these trained models. How much another training seed would move the result is shown by
    `per_seed` (accuracy) and `per_seed_difference` (against the control), one value per seed.
    """

    arm: str
    accuracy: Estimate
    per_seed: tuple[float | None, ...]
    comparison: Comparison | None
    per_seed_difference: tuple[float | None, ...]
    verdict: str


def compare(a: Evaluated, b: Evaluated, *, allow: Collection[str] = (), draws: int = DRAWS) -> Comparison:
    """The paired difference a − b over the problems that both sides graded.

    Args:
        allow: settings that may differ, by dotted name or by the name of their group (`engine`).

    Raises:
        CompareError: other settings differ, or the problems do.
    """
    _check_settings(a, b, allow)
    left, right = _by_problem(a), _by_problem(b)
    shared = _shared_problems([left, right], [a.label, b.label])
    clusters = [left[problem].cluster for problem in shared]
    difference = paired_difference(_scores([left], shared), _scores([right], shared), clusters, draws=draws)
    return Comparison(a.label, b.label, difference, len(left) - len(shared))


def adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with their p-values Holm-adjusted as one family."""
    adjusted = holm([each.difference.p for each in comparisons])
    return [replace(each, p_holm=p) for each, p in zip(comparisons, adjusted, strict=True)]


def across_seeds(arms: Mapping[str, Sequence[Evaluated]], control: str, *, draws: int = DRAWS) -> list[ArmOverSeeds]:
    """Every arm over its seeds, and against the arm named `control`.

    Args:
        arms: arm -> one `Evaluated` per seed, the same seeds in the same order for every arm.

    Raises:
        CompareError: there is no such control, the arms have different numbers of seeds, or settings or problems
            differ.
    """
    if control not in arms:
        raise CompareError(f"there is no arm `{control}` to compare with; there are: {', '.join(arms)}")
    if len({len(sides) for sides in arms.values()}) != 1:
        numbers = ", ".join(f"{arm} {len(sides)}" for arm, sides in arms.items())
        raise CompareError(f"every arm needs the same seeds; evaluated so far: {numbers}")
    sides = [side for each in arms.values() for side in each]
    for side in sides[1:]:
        _check_settings(sides[0], side, ())
    tables = {arm: [_by_problem(side) for side in each] for arm, each in arms.items()}
    every = [table for each in tables.values() for table in each]
    shared = _shared_problems(every, [side.label for side in sides])
    clusters = [every[0][problem].cluster for problem in shared]
    scores = {arm: _scores(each, shared) for arm, each in tables.items()}
    left_out = len(every[0]) - len(shared)
    comparisons = adjust(
        [
            Comparison(arm, control, paired_difference(scores[arm], scores[control], clusters, draws=draws), left_out)
            for arm in arms
            if arm != control
        ]
    )
    found = {each.a: each for each in comparisons}
    return [_over_seeds(arm, scores, clusters, found.get(arm), draws) for arm in arms]


def verdict(comparison: Comparison, seeds: int) -> str:
    """What may be said. "Improved" takes at least 3 seeds and an interval above 0."""
    low, high = comparison.difference.estimate.low, comparison.difference.estimate.high
    if low is None or high is None:
        return f"no interval: {comparison.difference.estimate.reason}"
    if low <= 0 <= high:
        detectable = comparison.difference.detectable
        size = "" if detectable is None else f" (smallest detectable effect {100 * detectable:.1f} points)"
        return f"no difference shown at this size{size}"
    if seeds < SEEDS_FOR_A_CLAIM:
        side = "above" if low > 0 else "below"
        return f"the interval lies {side} 0; a claim takes {SEEDS_FOR_A_CLAIM} seeds, not {seeds}"
    return f"{'improved on' if low > 0 else 'worse than'} {comparison.b}, {seeds} seeds"


def _over_seeds(
    arm: str, scores: Mapping[str, Floats], clusters: Sequence[str], comparison: Comparison | None, draws: int
) -> ArmOverSeeds:
    own = scores[arm]
    accuracy = mean_interval(own.mean(0), clusters, draws=draws)
    per_seed = tuple(_mean_or_none(row) for row in own)
    if comparison is None:
        return ArmOverSeeds(arm, accuracy, per_seed, None, (), "the control")
    differences = tuple(_mean_or_none(row) for row in own - scores[comparison.b])
    return ArmOverSeeds(arm, accuracy, per_seed, comparison, differences, verdict(comparison, len(own)))


def _scores(tables: Sequence[Mapping[str, Trial]], problems: Sequence[str]) -> Floats:
    """[S, N]: one row per side."""
    return np.array([[table[problem].score for problem in problems] for table in tables], float)


def _mean_or_none(row: Floats) -> float | None:
    return float(row.mean()) if len(row) else None


def _check_settings(a: Evaluated, b: Evaluated, allow: Collection[str]) -> None:
    keys = [
        key
        for key in differing_keys(a.settings, b.settings)
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in allow)
    ]
    if keys:
        raise CompareError(f"`{a.label}` and `{b.label}` were evaluated differently: {', '.join(keys)} differ")


def _by_problem(side: Evaluated) -> dict[str, Trial]:
    table: dict[str, Trial] = {}
    for trial in side.trials:
        if trial.problem_id in table:
            raise CompareError(f"`{side.label}` has two trials for problem `{trial.problem_id}`")
        table[trial.problem_id] = trial
    return table


def _shared_problems(tables: Sequence[Mapping[str, Trial]], labels: Sequence[str]) -> list[str]:
    """The problems that every side graded, in the first side's order."""
    first = tables[0]
    ungraded: set[str] = set()
    for label, table in zip(labels, tables, strict=True):
        if table.keys() != first.keys():
            other = sorted(table.keys() ^ first.keys())[0]
            raise CompareError(f"`{labels[0]}` and `{label}` have different problems, `{other}` for one")
        for problem, trial in table.items():
            if trial.score is None:
                ungraded.add(problem)
            elif trial.cluster != first[problem].cluster:
                raise CompareError(f"problem `{problem}` is in other clusters in `{labels[0]}` and `{label}`")
    return [problem for problem in first if problem not in ungraded]
