"""Means, differences and their intervals, when problems come in clusters.

Problems of one cluster (one image, one template) are not independent, so whole clusters are drawn: the bootstrap over
clusters (Davison & Hinkley 1997, ch. 3.8), and beside it the clustered standard error of arXiv 2411.00640. Which of the
draws are the ends of an interval is told by BCa (Efron 1987), which mends skew, at the level of a t quantile (the
expanded percentile of arXiv 1411.5279), since few clusters, or a few that count for most, say less of their spread.
With many clusters all of it is the percentile bootstrap. An undefined number is None with a reason, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

DRAWS = 10_000
LEVEL = 0.95
POWER = 0.8
FEW_CLUSTERS = 20
FEW_EVEN = 10
"""Clusters of one size that uneven ones must be as good as."""
_CELLS = 4_000_000
"""Entries of the index matrix that are in memory at once."""
_NOISE = 1e-12
"""Thirds that were added in another order differ by less; no two means of trials differ by so little."""
_METHOD = "cluster bootstrap"
_ALIKE = "every draw of clusters gives the same value"
_ONE_CLUSTER = "an interval takes at least 2 clusters"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems with its interval. `low` and `high` are None when they are undefined; `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    se: float | None
    n: int
    clusters: int
    method: str | None
    reason: str | None = None
    warning: str | None = None

    @property
    def flat(self) -> bool:
        """Whether every draw gave the same value: the interval has no width, and is none."""
        return self.low is not None and self.low == self.high


@dataclass(frozen=True, slots=True)
class Difference:
    """`estimate` of mean(A − B) over the same problems; `better`, `worse`, `same`: shares of problems, A against B.

    `p` is the two-sided sign-flip p of "no difference"; `detectable` the smallest true difference that a comparison of
    this size would show with 80 % power at the 5 % level, None where so few clusters differ that it is not known.
    """

    estimate: Estimate
    p: float | None
    better: float | None
    worse: float | None
    same: float | None
    detectable: float | None


def mean_interval(
    values: ArrayLike, clusters: Sequence[Any], *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0
) -> Estimate:
    """The mean of `values` [N] with its bootstrap interval over clusters.

    Where every draw gives the same mean of shares (0 of 30 right), Clopper–Pearson over clusters stands in; fewer than
    2 clusters give no interval.

    Raises:
        ValueError: a value is not finite, a cluster is missing, or the lengths differ; names the row.
    """
    estimate = _bootstrap(*_by_cluster(values, clusters), draws=draws, level=level, seed=seed)
    if not estimate.flat or not 0 <= (estimate.value or 0.0) <= 1:
        return estimate
    low, high = clopper_pearson((estimate.value or 0.0) * estimate.clusters, estimate.clusters, level)
    return replace(estimate, low=low, high=high, method="Clopper-Pearson over clusters")


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    clusters: Sequence[Any],
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Difference:
    """mean(a − b) over the same problems in the same order, [N] or [S, N]; S seeds are averaged per problem first.

    The interval is the cluster bootstrap of the differences; exchanging the sides negates it exactly. The p-value flips
    the sign of whole clusters at random and counts the observed arrangement among the flips (Phipson & Smyth 2010).
    Where it does not exclude "no difference" at this level, neither does the interval: four problems that flip the same
    way show nothing, however the draws fall. Where all clusters differ by the same amount, the intervals of the two
    sides are put together; that of sides without any difference is [0, 0].
    """
    difference = differences(a, b)
    sums, sizes = _by_cluster(difference, clusters)
    estimate = _bootstrap(sums, sizes, draws=draws, level=level, seed=seed)
    if estimate.value is None:
        return Difference(estimate, None, None, None, None, None)
    p = _sign_flip(sums, draws, seed) if len(sums) > 1 else None
    if estimate.flat and difference.any():
        sides = (np.atleast_2d(np.asarray(side, float)).mean(0) for side in (a, b))
        of_a, of_b = (mean_interval(side, clusters, draws=draws, level=level, seed=seed) for side in sides)
        estimate = from_both(estimate, of_a, of_b)
    hidden = p is not None and p > 1 - level
    if hidden and estimate.low is not None and estimate.high is not None:
        estimate = replace(estimate, low=min(estimate.low, 0.0), high=max(estimate.high, 0.0))
    better, worse = float(np.mean(difference > 0)), float(np.mean(difference < 0))
    detectable = None if estimate.se is None else detectable_effect(estimate.se, 1 - level)
    if hidden and detectable is not None and detectable < abs(difference.mean()):
        detectable = None  # So few clusters differ that their signs decide, of which the normal theory knows nothing.
    return Difference(
        estimate=estimate, p=p, better=better, worse=worse, same=float(np.mean(difference == 0)), detectable=detectable
    )


def differences(a: ArrayLike, b: ArrayLike) -> Floats:
    """mean over seeds of a − b, for each problem: [N] or [S, N] -> [N]. What differs in the last bits alone is 0."""
    found = np.atleast_2d(np.asarray(a, float)).mean(0) - np.atleast_2d(np.asarray(b, float)).mean(0)
    return np.where(np.abs(found) < _NOISE, 0.0, found)


def from_both(found: Estimate, a: Estimate, b: Estimate) -> Estimate:
    """`found`, a difference a − b, with the intervals of the two sides put together (MOVER; Newcombe 1998)."""
    if found.value is None or None in (a.value, a.low, a.high, b.value, b.low, b.high):
        return replace(found, low=None, high=None, reason=a.reason or b.reason)
    assert a.value is not None and a.low is not None and a.high is not None
    assert b.value is not None and b.low is not None and b.high is not None
    low = found.value - math.hypot(a.value - a.low, b.high - b.value)
    high = found.value + math.hypot(a.high - a.value, b.value - b.low)
    return replace(found, low=low, high=high, method="the two sides' intervals put together")


def function_interval(
    columns: ArrayLike,
    clusters: Sequence[Any],
    function: Callable[[Floats], Floats],
    undefined: str,
    *,
    alike: Callable[[Estimate], Estimate] = lambda flat: replace(flat, low=None, high=None, reason=_ALIKE),
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """A function of several means over the same problems, such as their ratio, with its cluster bootstrap interval.

    All means are computed anew in each draw of clusters. Where every draw gives the same value, there is no interval: a
    caller that knows another one replaces what is `flat` by way of `alike`.

    Args:
        columns: [N, F], a row for each problem.
        function: from means [D, F] to values [D], NaN where it is undefined.
        undefined: when that is, as a clause; it becomes the reason for a value that is missing.
        alike: from an estimate that is flat to the one that stands in for it.

    Raises:
        ValueError: as for `mean_interval`.
    """
    table = np.asarray(columns, float)
    by_column = [_by_cluster(column, clusters) for column in table.T]
    sizes = by_column[0][1]
    n, count = int(sizes.sum()), len(sizes)
    if n == 0:
        return Estimate(None, None, None, None, 0, 0, None, reason="no graded problem")
    value = float(function(np.array([[sums.sum() / n for sums, _ in by_column]]))[0])
    if not math.isfinite(value):
        return Estimate(None, None, None, None, n, count, None, reason=undefined)
    if count < 2:
        return Estimate(value, None, None, None, n, count, None, reason=_ONE_CLUSTER)
    # One seed: the draws of all columns are of the same clusters.
    drawn = function(np.stack([_drawn_means(sums, sizes, draws, seed) for sums, _ in by_column], 1))
    defined = drawn[np.isfinite(drawn)]
    missing = 1 - len(defined) / draws
    if missing > (1 - level) / 2:
        reason = f"{undefined} in {missing:.1%} of the draws"
        return Estimate(value, None, None, None, n, count, None, reason=reason)
    without = function(np.stack([_means_without(sums, sizes) for sums, _ in by_column], 1))
    ends = _ends(defined, value, without[np.isfinite(without)], _as_even(sizes), level)
    estimate = Estimate(value, *ends, None, n, count, _METHOD, warning=_rough(sizes))
    return alike(estimate) if estimate.flat else estimate


def ratio(means: Floats) -> Floats:
    """First column over second, [D, 2] -> [D]; NaN where the second is 0."""
    found: Floats = np.full(len(means), np.nan)
    return np.divide(means[:, 0], means[:, 1], out=found, where=means[:, 1] > 0)


def clustered_se(values: ArrayLike, clusters: Sequence[Any]) -> float:
    """sqrt(Σ_c (Σ_{i∈c} (x_i − x̄))² · C/(C−1)) / N: eq. 4 of arXiv 2411.00640 with the finite-cluster factor."""
    return _se(*_by_cluster(values, clusters))


def clopper_pearson(successes: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact binomial interval (Clopper & Pearson 1934). `successes` may be fractional."""
    from scipy.special import betaincinv  # Not scipy.stats, whose import takes a second.

    alpha = (1 - level) / 2
    low = 0.0 if successes <= 0 else float(betaincinv(successes, n - successes + 1, alpha))
    high = 1.0 if successes >= n else float(betaincinv(successes + 1, n - successes, 1 - alpha))
    return low, high


def detectable_effect(se: float, alpha: float = 1 - LEVEL, power: float = POWER) -> float:
    """The smallest difference shown with that power: (z_{1−α/2} + z_power)·se; se = s_d/√M for independent problems."""
    quantile = NormalDist().inv_cdf
    return (quantile(1 - alpha / 2) + quantile(power)) * se


def problems_needed(effect: float, sd: float, alpha: float = 1 - LEVEL, power: float = POWER) -> int | None:
    """Problems that show a difference of `effect` with that power; `sd` is that of the paired differences.

    n = (z_{1−α/2} + z_power)²·sd²/effect², the sample-size formula of arXiv 2411.00640.
    None for no effect: no number would show it.
    """
    return math.ceil((detectable_effect(sd, alpha, power) / effect) ** 2) if effect else None


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (1979). None stays None and is not counted as a comparison."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    floor = 0.0
    for rank, (p, index) in enumerate(order):
        floor = max(floor, min(1.0, (len(order) - rank) * p))
        adjusted[index] = floor
    return adjusted


def auroc(scores: ArrayLike, truth: ArrayLike) -> float | None:
    """P(score of a true row > score of a false row), ties count half (Mann–Whitney). None if one class is empty."""
    positive = np.asarray(truth, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        return None
    _, place, counts = np.unique(np.asarray(scores, float), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # Ties share the mean of their ranks.
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def _by_cluster(values: ArrayLike, clusters: Sequence[Any]) -> tuple[Floats, Floats]:
    """Sum and size of each cluster, [C] each, in order of first appearance."""
    x = np.asarray(values, float)
    if x.ndim != 1 or len(x) != len(clusters):
        raise ValueError(f"{x.shape} values do not go with {len(clusters)} clusters")
    if not np.isfinite(x).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(x)))} has no finite value")
    codes: dict[Any, int] = {}
    index = np.empty(len(x), np.int64)
    for row, cluster in enumerate(clusters):
        if cluster is None or cluster == "" or cluster != cluster:
            raise ValueError(f"row {row} has no cluster")
        index[row] = codes.setdefault(cluster, len(codes))
    sums: Floats = np.bincount(index, x, len(codes)).astype(np.float64)
    sizes: Floats = np.bincount(index, minlength=len(codes)).astype(np.float64)
    return sums, sizes


def _bootstrap(sums: Floats, sizes: Floats, *, draws: int, level: float, seed: int) -> Estimate:
    n, count = int(sizes.sum()), len(sums)
    if n == 0:
        return Estimate(None, None, None, None, 0, 0, None, reason="no graded problem")
    value = float(sums.sum() / n)
    if count < 2:
        return Estimate(value, None, None, None, n, count, None, reason=_ONE_CLUSTER)
    drawn, without = _drawn_means(sums, sizes, draws, seed), _means_without(sums, sizes)
    low, high = _ends(drawn, value, without, _as_even(sizes), level)
    return Estimate(value, low, high, _se(sums, sizes), n, count, _METHOD, warning=_rough(sizes))


def _ends(drawn: Floats, value: float, without: Floats, even: float, level: float) -> tuple[float, float]:
    """The draws that are the ends of the interval: BCa (Efron 1987, eq. 6.8) with a t quantile in place of the normal.

    Symmetric by construction, so that the interval of the negated values is the negated interval.

    Args:
        drawn: the values of the draws [D].
        without: the values without each of the clusters [C], from which come skew and kurtosis.
        even: how many clusters of one size they are as good as.
    """
    from scipy.special import ndtr, ndtri, stdtrit  # Not scipy.stats, as below.

    ordered = np.sort(drawn)
    moved = without.mean() - without
    spread = float((moved**2).sum())
    near = _NOISE * max(1.0, abs(value))
    if ordered[-1] - ordered[0] <= near:
        return value, value
    if len(without) < 2 or spread <= near**2:
        return float(ordered[0]), float(ordered[-1])
    count = len(without)
    freedom = _freedom(count * float((moved**4).sum()) / spread**2, count, even)
    reach = -float(stdtrit(freedom, (1 - level) / 2)) * math.sqrt(count / (count - 1))
    skew = float((moved**3).sum()) / (6 * spread**1.5)
    below, above = int((drawn < value - near).sum()), int((drawn > value + near).sum())
    middle = max(1, len(drawn) - abs(below - above)) / (2 * len(drawn))
    off = math.copysign(float(ndtri(middle)), below - above)

    def tail(side: float) -> int:
        """Draws beyond the end on the lower (−1) or upper (1) side."""
        far = side * off - reach
        bend = 1 - side * skew * far
        beyond = float(ndtr(side * off + far / bend)) if bend > 0 else 0.0
        return round(beyond * len(drawn))

    low, high = tail(1.0), tail(-1.0)
    return float(ordered[min(low, len(drawn) - 1)]), float(ordered[max(len(drawn) - 1 - high, 0)])


def _freedom(kurtosis: float, count: int, even: float) -> float:
    """Degrees of freedom of the spread of `count` clusters with that kurtosis: var(s²) = σ⁴(κ − 1)/C, matched to a χ²
    (Satterthwaite 1946), κ freed of its bias (Joanes & Gill 1998, G₂); never more than `even` ones have."""
    if count > 3:
        excess = (count - 1) / ((count - 2) * (count - 3)) * ((count + 1) * (kurtosis - 3) + 6)
        even = min(even, 1 + 2 * count / max(excess + 2, _NOISE))
    return max(1.0, even - 1)


def _as_even(sizes: Floats) -> float:
    """Clusters of one size that these are as good as (Kish 1965)."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _means_without(sums: Floats, sizes: Floats) -> Floats:
    """The mean without each of the clusters, [C]."""
    means: Floats = (sums.sum() - sums) / (sizes.sum() - sizes)
    return means


def _rough(sizes: Floats) -> str | None:
    """A warning where the clusters are few, or as good as few since some of them have most problems."""
    count, even = len(sizes), _as_even(sizes)
    if count < FEW_CLUSTERS:
        return f"only {count} clusters: the interval is rough"
    if even < FEW_EVEN:
        return f"{count} clusters so uneven that they are as good as {even:.0f}: the interval is rough"
    return None


def _drawn_means(sums: Floats, sizes: Floats, draws: int, seed: int) -> Floats:
    return np.concatenate(list(_draw_means(sums, sizes, draws, seed)))


def _draw_means(sums: Floats, sizes: Floats, draws: int, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    count = len(sums)
    equal = bool((sizes == sizes[0]).all())
    rows = max(1, _CELLS // count)
    for start in range(0, draws, rows):
        index = generator.integers(0, count, size=(min(rows, draws - start), count), dtype=np.int32)
        totals = sums[index].sum(1)
        yield totals / (sizes[0] * count if equal else sizes[index].sum(1))


def _sign_flip(sums: Floats, flips: int, seed: int) -> float:
    generator = np.random.default_rng(seed)
    moving = sums[sums != 0]  # A cluster without a difference is the same under either sign.
    observed = abs(moving.sum())
    # Sums in another order differ in their last bits; an arrangement that ties with the observed one must count.
    threshold = observed - 1e-9 * max(1.0, float(np.abs(moving).sum()))
    at_least, rows = 0, max(1, _CELLS // max(1, len(moving)))
    for start in range(0, flips, rows):
        size = (min(rows, flips - start), len(moving))
        signs = generator.integers(0, 2, size=size, dtype=np.int8) * 2.0 - 1.0
        at_least += int((np.abs(signs @ moving) >= threshold).sum())
    return (1 + at_least) / (1 + flips)


def _se(sums: Floats, sizes: Floats) -> float:
    n, count = sizes.sum(), len(sums)
    residuals = sums - sizes * (sums.sum() / n)
    return float(np.sqrt((residuals**2).sum() * count / (count - 1)) / n)
