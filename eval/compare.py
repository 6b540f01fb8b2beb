"""Which of two checkpoints is better, on the same problems: never by two overlapping intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eval.estimators import over_problems, paired_over_problems
from eval.stats import DRAWS, Difference, Estimate, Floats, differences, holm
from eval.suite import CompareError, SettingsDiffer, differing_keys
from eval.tally import by_problem, tally
from eval.trial import Trial, TrialError

SEEDS_FOR_A_CLAIM = 3
NOTHING_SOLVED = "neither solves any problem, which shows nothing"
"""The verdict where both sides are at 0: they may fail for one reason that has nothing to do with what they know."""
_NAMED = 3
"""Problems that a refusal names."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A checkpoint's trials and the settings of the suite (`Suite.settings`) that they were made under.

    `iterations`: those that its loop made; None where it has none.
    """

    label: str
    settings: Mapping[str, Any]
    trials: Sequence[Trial]
    iterations: int | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """`a` against `b`. `left_out`: problems that one side could not grade; with too many of them the difference and
    the `shares` have no value. `p_holm`: p adjusted for its family.

    `gained` and `lost` are the problems that flipped: right for `a` and wrong for `b`, and the other way. With several
    trials or seeds of a problem, those that `a` gets right more often, and less often. `shares`: what `a` and `b` get
    right of these problems. `solved`: whether either side gets anything right; where neither does, a difference of 0
    shows nothing.
    """

    a: str
    b: str
    difference: Difference
    left_out: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    shares: tuple[float | None, float | None] = (None, None)
    solved: bool = True
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class _Scored:
    """One problem on one side: the share of its graded trials that is right, None where none could be graded."""

    cluster: str
    value: float | None


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
    """The paired difference a − b over the problems that both sides graded, each with the mean of its trials.

    Args:
        allow: settings that may differ, by dotted name or by the name of their group (`engine`).

    Raises:
        CompareError: other settings differ, or the problems do.
    """
    check_settings(a, b, allow)
    left, right = _scored(a), _scored(b)
    shared = _shared_problems([left, right], [a.label, b.label])
    clusters = [left[problem].cluster for problem in shared]
    pair = _scores([left], shared), _scores([right], shared)
    return _paired(a.label, b.label, *pair, shared, clusters, left_out=len(left) - len(shared), draws=draws)


def adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with their p-values Holm-adjusted as one family, which may be of several suites."""
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
        check_settings(sides[0], side, ())
    tables = {arm: [_scored(side) for side in each] for arm, each in arms.items()}
    every = [table for each in tables.values() for table in each]
    shared = _shared_problems(every, [side.label for side in sides])
    clusters = [every[0][problem].cluster for problem in shared]
    scores = {arm: _scores(each, shared) for arm, each in tables.items()}
    left_out = len(every[0]) - len(shared)
    comparisons = adjust(
        [
            _paired(arm, control, scores[arm], scores[control], shared, clusters, left_out=left_out, draws=draws)
            for arm in arms
            if arm != control
        ]
    )
    found = {each.a: each for each in comparisons}
    return [_over_seeds(arm, scores, clusters, found.get(arm), left_out, draws) for arm in arms]


def verdict(comparison: Comparison, seeds: int) -> str:
    """What may be said. "Improved" takes at least 3 seeds and an interval above 0."""
    low, high = comparison.difference.estimate.low, comparison.difference.estimate.high
    if low is None or high is None:
        return f"no interval: {comparison.difference.estimate.reason}"
    if not comparison.solved:
        return NOTHING_SOLVED
    if low <= 0 <= high:
        detectable = comparison.difference.detectable
        if detectable is None:
            return "no difference shown: too few clusters differ"
        size = f" (smallest detectable effect {100 * detectable:.1f} points)" if detectable else ""
        return f"no difference shown at this size{size}"
    if seeds < SEEDS_FOR_A_CLAIM:
        side = "above" if low > 0 else "below"
        return f"the interval lies {side} 0; a claim takes {SEEDS_FOR_A_CLAIM} seeds, not {seeds}"
    return f"{'improved on' if low > 0 else 'worse than'} {comparison.b}, {seeds} seeds"


def _over_seeds(
    arm: str,
    scores: Mapping[str, Floats],
    clusters: Sequence[str],
    comparison: Comparison | None,
    left_out: int,
    draws: int,
) -> ArmOverSeeds:
    own = scores[arm]
    of_problems = [*own.mean(0), *[None] * left_out]
    everywhere = [*clusters, *[""] * left_out]
    accuracy = over_problems(of_problems, everywhere, "problems could be graded for every arm and seed", draws=draws)
    known = accuracy.value is not None
    per_seed = tuple(_mean_or_none(row, known) for row in own)
    if comparison is None:
        return ArmOverSeeds(arm, accuracy, per_seed, None, (), "the control")
    differences = tuple(_mean_or_none(row, known) for row in own - scores[comparison.b])
    return ArmOverSeeds(arm, accuracy, per_seed, comparison, differences, verdict(comparison, len(own)))


def _paired(
    a: str,
    b: str,
    a_scores: Floats,
    b_scores: Floats,
    problems: Sequence[str],
    clusters: Sequence[str],
    *,
    left_out: int,
    draws: int,
) -> Comparison:
    """`a_scores`, `b_scores`: [S, N], a row for each seed."""
    difference = paired_over_problems(a_scores, b_scores, clusters, len(problems) + left_out, draws=draws)
    known = difference.estimate.value is not None
    change = differences(a_scores, b_scores)
    gained, lost = (
        tuple(problem for problem, flipped in zip(problems, side, strict=True) if flipped)
        for side in (change > 0, change < 0)
    )
    shares = _mean_or_none(a_scores.ravel(), known), _mean_or_none(b_scores.ravel(), known)
    return Comparison(a, b, difference, left_out, gained, lost, shares, bool(a_scores.any() or b_scores.any()))


def _scores(tables: Sequence[Mapping[str, _Scored]], problems: Sequence[str]) -> Floats:
    """[S, N]: one row per side."""
    return np.array([[table[problem].value for problem in problems] for table in tables], float)


def _mean_or_none(row: Floats, known: bool) -> float | None:
    return float(row.mean()) if known and len(row) else None


def check_settings(a: Evaluated, b: Evaluated, allow: Collection[str]) -> None:
    """Raises `SettingsDiffer`, which names the settings that differ and are not allowed to."""
    keys = [
        key
        for key in differing_keys(a.settings, b.settings)
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in allow)
    ]
    if keys:
        raise SettingsDiffer(a.label, b.label, keys)


def _scored(side: Evaluated) -> dict[str, _Scored]:
    try:
        tallies = [tally(trials) for trials in by_problem(side.trials).values()]
    except TrialError as error:
        raise CompareError(f"`{side.label}`: {error}") from error
    return {each.problem: _Scored(each.cluster, each.passes / each.n if each.n else None) for each in tallies}


def _shared_problems(tables: Sequence[Mapping[str, _Scored]], labels: Sequence[str]) -> list[str]:
    """The problems that every side graded, in the first side's order."""
    first = tables[0]
    ungraded: set[str] = set()
    for label, table in zip(labels, tables, strict=True):
        if table.keys() != first.keys():
            only = [_only_in(labels[0], first, table), _only_in(label, table, first)]
            raise CompareError(
                f"`{labels[0]}` and `{label}` have different problems: {', '.join(filter(None, only))}; "
                "evaluate both on the same data"
            )
        for problem, scored in table.items():
            if scored.value is None:
                ungraded.add(problem)
            elif scored.cluster != first[problem].cluster:
                raise CompareError(f"problem `{problem}` is in other clusters in `{labels[0]}` and `{label}`")
    return [problem for problem in first if problem not in ungraded]


def _only_in(label: str, table: Mapping[str, _Scored], other: Mapping[str, _Scored]) -> str:
    """`3 only in `a` (x, y, z)`, or nothing."""
    only = [problem for problem in table if problem not in other]
    named = ", ".join(only[:_NAMED]) + (", …" if len(only) > _NAMED else "")
    return f"{len(only)} only in `{label}` ({named})" if only else ""
