"""Which triads are taken: the most consistent to train on, or the least understood to learn about next.

Two functions, because the sign differs; neither takes one (specification of the triad: a filter keeps agreement, a
collector wants disagreement).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from tasks.draw import uniform

SELECT_REASONS = {
    "unscored": "its score could not be computed",
    "gate": "it misses a threshold",
    "below_cut": "others of its type scored higher",
    "small_type": "none of its type is kept: too few pairs for the fraction, or a fraction of 0",
    "quota": "its type would exceed its quota of what is kept",
}


def share_of_each(types: Sequence[str], fraction: float) -> dict[str, int]:
    """⌊n_type · fraction⌋ of each type, in exact arithmetic."""
    return {kind: int(count * Fraction(str(fraction))) for kind, count in Counter(types).items()}


def accept_consistent(
    agreement: Sequence[float | None],
    types: Sequence[str],
    ids: Sequence[str],
    sizes: Mapping[str, int],
    seed: int,
    *,
    passes: Sequence[bool] | None = None,
    quota: float | None = None,
) -> list[str | None]:
    """Keeps the `sizes[type]` rows of each type with the highest `agreement`, fewer where too few pass.

    The paper's sizes are `share_of_each(types, 0.2)`, which counts all rows of a type: a gate changes which rows are
    kept and never how many more of them. A type without a size keeps none. Returns per row None where it is kept, else
    the reason: a key of `SELECT_REASONS`. Ties at the cut are broken by a hash of (seed, id), never by order. `quota`
    caps each type's share of what is kept.

    Raises ValueError where the quota cannot be met by so few types.
    """
    passes = passes if passes is not None else [True] * len(types)
    reasons: list[str | None] = ["below_cut"] * len(types)
    kept: dict[str, list[int]] = {}
    members: dict[str, list[int]] = defaultdict(list)
    for i, kind in enumerate(types):
        members[kind].append(i)
    for kind, rows in members.items():
        size = sizes.get(kind, 0)
        able = []
        for i in rows:
            if agreement[i] is None:
                reasons[i] = "unscored"
            elif not passes[i]:
                reasons[i] = "gate"
            elif not size:
                reasons[i] = "small_type"
            else:
                able.append(i)
        kept[kind] = sorted(able, key=lambda i: (-_known(agreement[i]), uniform("tie", seed, ids[i])))[:size]
    for kind, limit in _quotas({kind: len(rows) for kind, rows in kept.items()}, quota).items():
        for place, i in enumerate(kept[kind]):
            reasons[i] = None if place < limit else "quota"
    return reasons


def select_informative(disagreement: Sequence[float | None], ids: Sequence[str], k: int, seed: int) -> list[int]:
    """The `k` rows with the largest `disagreement`: what to label, collect or roll out next. Largest first.

    Ties are broken the other way round than in `accept_consistent`, so that rows are taken by one of the two alone as
    long as both counts fit into their number.

    Raises ValueError where fewer than `k` rows have one.
    """
    known = [i for i, value in enumerate(disagreement) if value is not None]
    if k > len(known):
        raise ValueError(f"k = {k} is more than the {len(known)} rows that have a score")
    return sorted(known, key=lambda i: (-_known(disagreement[i]), -uniform("tie", seed, ids[i])))[:k]


def _quotas(counts: Mapping[str, int], quota: float | None) -> Mapping[str, int]:
    """The largest counts of which none exceeds its quota of their sum."""
    present = Counter({kind: count for kind, count in counts.items() if count})
    if quota is None or not present:
        return counts
    share = Fraction(str(quota))
    if share * len(present) < 1:
        raise ValueError(
            f"a quota of {quota:g} cannot be met by {len(present)} types; it must be at least 1/{len(present)}"
        )
    limited = dict(counts)
    while True:
        limit = int(share * sum(limited.values()))
        smaller = {kind: min(count, limit) for kind, count in limited.items()}
        if smaller == limited:
            return limited
        limited = smaller


def _known(value: float | None) -> float:
    assert value is not None
    return value
