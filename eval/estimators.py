"""What k of n trials of a problem would have shown, without bias: pass@k, pass^k, maj@k, and how they hang together.

All are means over the subsets of k of a problem's n graded trials, exact in integers, and a suite's value is the plain
mean over its problems. Suite totals in place of n and c would give another and larger number, so every function takes
one `Tally` per problem. With n < k a value is not known: None with a reason, never 0 or 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import ArrayLike

from eval.stats import DRAWS, Difference, Estimate, function_interval, mean_interval, paired_difference, ratio
from eval.tally import Tally

LEAST_KNOWN = Fraction(19, 20)
"""A suite has no value where it is known of fewer of its problems than this share."""


def pass_at_k(problem: Tally, k: int) -> Fraction | None:
    """The chance that at least one of k trials passes: 1 − C(n−c, k)/C(n, k) (arXiv 2107.03374)."""
    if not _enough(problem, k):
        return None
    return 1 - Fraction(comb(problem.n - problem.passes, k), comb(problem.n, k))


def pass_hat_k(problem: Tally, k: int) -> Fraction | None:
    """The chance that all of k trials pass: C(c, k)/C(n, k) (pass^k of arXiv 2406.12045)."""
    return Fraction(comb(problem.passes, k), comb(problem.n, k)) if _enough(problem, k) else None


def maj_at_k(problem: Tally, k: int) -> Fraction | None:
    """The chance that the most frequent answer of k trials is right (arXiv 2203.11171).

    Among answers that are equally frequent, the share that is right: no order decides. Subsets without a vote count 0.
    The mean over all C(n, k) subsets is found by counting them, not by going through them.

    Raises:
        ValueError: the tally has no votes.
    """
    if problem.votes is None:
        raise ValueError(f"problem `{problem.problem}`: its answers were not put into groups")
    if not _enough(problem, k):
        return None
    votes = tuple(sorted((vote.trials, vote.passes) for vote in problem.votes))
    return _majority(votes, problem.n - sum(size for size, _ in votes), k) / comb(problem.n, k)


METRICS: Mapping[str, Callable[[Tally, int], Fraction | None]] = {
    "pass@": pass_at_k,
    "pass^": pass_hat_k,
    "maj@": maj_at_k,
}


def metrics_at(problems: Sequence[Tally], k: int, *, draws: int = DRAWS) -> dict[str, Estimate]:
    """The suite's `pass@k`, `pass^k`, `maj@k` and `consistency@k`, each under its name with the number for k.

    With k = 1 `pass@1` stands alone: pass^1 and maj@1 are the same number.
    """
    found = {
        f"{name}{k}": over_problems(
            [metric(problem, k) for problem in problems],
            [problem.cluster for problem in problems],
            f"problems have {k} graded trials",
            draws=draws,
        )
        for name, metric in METRICS.items()
        if k > 1 or metric is pass_at_k
    }
    return found if k == 1 else {**found, f"consistency@{k}": consistency(problems, k, draws=draws)}


def over_problems(
    values: Sequence[Fraction | float | None], clusters: Sequence[str], needed: str, *, draws: int = DRAWS
) -> Estimate:
    """The mean over the problems whose value is known, with its cluster interval; over fewer than all, a warning.

    Args:
        needed: what a known problem has, for the reason: `only 3 of 40 {needed}`.
    """
    known = [(float(value), cluster) for value, cluster in zip(values, clusters, strict=True) if value is not None]
    drawn = [cluster for _, cluster in known]
    if reason := too_few(len(known), len(values), needed):
        return Estimate(None, None, None, None, len(known), len(set(drawn)), None, reason=reason)
    return mark_partial(mean_interval([value for value, _ in known], drawn, draws=draws), len(values))


def paired_over_problems(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[str], total: int, *, draws: int = DRAWS
) -> Difference:
    """`paired_difference` over the problems that both sides know, of `total`: with no value where these are too few."""
    if reason := too_few(len(clusters), total, "problems could be graded on both sides"):
        unknown = Estimate(None, None, None, None, len(clusters), len(set(clusters)), None, reason=reason)
        return Difference(unknown, None, None, None, None, None)
    found = paired_difference(a, b, clusters, draws=draws)
    return replace(found, estimate=mark_partial(found.estimate, total))


def mark_partial(estimate: Estimate, total: int) -> Estimate:
    """The estimate, with a warning where it is of fewer than `total` problems."""
    if estimate.n == total:
        return estimate
    texts = (f"over {estimate.n} of {total} problems", estimate.warning)
    return replace(estimate, warning="; ".join(text for text in texts if text))


def consistency(problems: Sequence[Tally], k: int, *, draws: int = DRAWS) -> Estimate:
    """pass^k/(pass@1)^k of the suite: 1 as if every problem had the same chance and its trials were independent.

    Larger: failures sit on the same problems, up to (pass@1)^(1−k), where each is always or never solved. The interval
    draws clusters and computes both means anew.
    """
    known = [problem for problem in problems if _enough(problem, k)]
    clusters = [problem.cluster for problem in known]
    if reason := too_few(len(known), len(problems), f"problems have {k} graded trials"):
        return Estimate(None, None, None, None, len(known), len(set(clusters)), None, reason=reason)
    rows = [[float(pass_hat_k(problem, k) or 0), problem.passes / problem.n] for problem in known]
    estimate = function_interval(
        np.reshape(rows, (-1, 2)), clusters, lambda means: ratio(means ** [1, k]), "pass@1 is 0", draws=draws
    )
    return mark_partial(estimate, len(problems))


def _enough(problem: Tally, k: int) -> bool:
    if k < 1:
        raise ValueError(f"k is 1 or more, not {k}")
    return problem.n >= k


def too_few(known: int, total: int, needed: str) -> str | None:
    """Why there is no value over `known` of `total` problems; None where these are enough."""
    return f"only {known} of {total} {needed}" if known < LEAST_KNOWN * total else None


@lru_cache(maxsize=4096)
def _majority(votes: tuple[tuple[int, int], ...], silent: int, k: int) -> Fraction:
    """The credits of all subsets of k added up. `votes`: (trials, passes) per answer; `silent`: trials without one."""
    total = Fraction(0)
    for top in range(1, min(k, max((size for size, _ in votes), default=0)) + 1):
        # (trials used, answers with `top` of them) -> subsets, and over them the sum of the tied answers' credit, when
        # no answer may have more than `top`.
        states: dict[tuple[int, int], tuple[int, Fraction | int]] = {(0, 0): (1, 0)}
        for size, passes in votes:
            share = Fraction(passes, size) if passes % size else passes // size  # Integers are much quicker.
            after: dict[tuple[int, int], tuple[int, Fraction | int]] = defaultdict(lambda: (0, 0))
            for (used, tied), (ways, credit) in states.items():
                for taken in range(min(size, top, k - used) + 1):
                    key = used + taken, tied + (taken == top)
                    gain = ways * share if taken == top else 0
                    before, choices = after[key], comb(size, taken)
                    after[key] = before[0] + choices * ways, before[1] + choices * (credit + gain)
            states = after
        for (used, tied), (_, credit) in states.items():
            if tied:
                total += Fraction(credit * comb(silent, k - used), tied)
    return total
