"""How many problems a difference takes, and which differences so many problems can show."""

from __future__ import annotations

import math
from dataclasses import dataclass

from eval.stats import LEVEL, POWER, Difference, problems_needed


@dataclass(frozen=True, slots=True)
class Power:
    """`detectable`: the smallest true difference that `problems` would show, as a share; `needed`: the problems, in
    clusters like these, that would show a true difference of the size found. None: not known, or no number would."""

    problems: int
    detectable: float | None
    needed: int | None
    line: str


def power_of(difference: Difference) -> Power:
    """The power of a paired comparison, and the line that a report prints."""
    estimate = difference.estimate
    found, se = estimate.value, estimate.se
    problems = f"{estimate.n:,} problem{'' if estimate.n == 1 else 's'}"
    if found is None or se is None:
        reason = estimate.reason or "no interval"
        return Power(estimate.n, None, None, f"What {problems} can show is not known: {reason}.")
    if difference.detectable is None:
        few = f"too few of the {estimate.clusters:,} clusters differ"
        return Power(estimate.n, None, None, f"What {problems} can show is not known: {few}.")
    if se == 0:
        return Power(estimate.n, None, None, f"What {problems} can show is not known: all differ by the same amount.")
    # The clustered error of N problems is sd/√N with the sd that their clustering amounts to.
    needed = problems_needed(found, se * math.sqrt(estimate.n))
    size = f"{100 * abs(found):.1f} points"
    takes = f"one of {size}, as found, takes {needed:,} problems" if needed else "no number shows the 0.0 points found"
    line = (
        f"At {POWER:.0%} power and the {1 - LEVEL:.0%} level {problems} show a difference of "
        f"{100 * difference.detectable:.1f} points; {takes}."
    )
    return Power(estimate.n, difference.detectable, needed, line)
