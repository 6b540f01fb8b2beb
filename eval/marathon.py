"""Problems put one after another in one conversation, against the same problems put alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from eval.estimators import mark_partial, over_problems
from eval.stats import DRAWS, Estimate, function_interval, ratio


@dataclass(frozen=True, slots=True)
class Turn:
    """One problem of a block, which is one conversation: its strict scores in there (`together`) and `alone`.

    `position` counts from 1. A score is None where it could not be graded. `overflow`: the context was full before the
    problem was answered, which is a failure of the model and counts as 0.
    """

    block: str
    position: int
    together: float | None
    alone: float | None
    overflow: bool = False


@dataclass(frozen=True, slots=True)
class Marathon:
    """`ratio` of the two means, whole blocks drawn; `positions`: the score together at each position, from the first.

    `left_out`: turns that one side could not grade. They are in no number here but `overflow`.
    """

    ratio: Estimate
    together: Estimate
    alone: Estimate
    positions: tuple[Estimate, ...]
    overflow: int
    left_out: int


def marathon(turns: Sequence[Turn], *, draws: int = DRAWS) -> Marathon:
    """The marathon ratio: 1 where earlier problems in the context do no harm.

    Raises:
        ValueError: two turns have the same place.
    """
    places = Counter((turn.block, turn.position) for turn in turns)
    if double := [place for place, number in places.items() if number > 1]:
        raise ValueError(f"block `{double[0][0]}` has two turns at position {double[0][1]}")
    scored = [replace(turn, together=0.0) if turn.overflow else turn for turn in turns]
    pairs = [
        (turn.together, turn.alone) if turn.together is not None and turn.alone is not None else None for turn in scored
    ]
    blocks = [turn.block for turn in turns]
    needed = "problems could be graded on both sides"
    together, alone = (
        over_problems([pair and pair[side] for pair in pairs], blocks, needed, draws=draws) for side in (0, 1)
    )
    known = [pair for pair in pairs if pair is not None]
    change = together
    if together.value is not None:
        drawn = [block for block, pair in zip(blocks, pairs, strict=True) if pair is not None]
        found = function_interval(known, drawn, ratio, "nothing is right alone", draws=draws)
        change = mark_partial(found, len(turns))
    positions = []
    for position in sorted({turn.position for turn in turns}):
        rows = [row for row, turn in enumerate(turns) if turn.position == position]
        values = [pair and pair[0] for pair in (pairs[row] for row in rows)]
        positions.append(over_problems(values, [blocks[row] for row in rows], needed, draws=draws))
    overflow = sum(turn.overflow for turn in turns)
    return Marathon(change, together, alone, tuple(positions), overflow, len(turns) - len(known))
