"""Where a completion may be cut: after sentences and lines, well apart, and never once the answer has begun."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

from tasks.draw import seed64

GAP = 16
"""Tokens that lie between two cuts, and before the first."""
_ENDS = ("\n", ".", "!", "?", ";", ":")
_ANSWERS = ("<answer", "\\boxed", "####")


def boundaries(pieces: Sequence[str], gap: int = GAP) -> list[int]:
    """The places where a completion may be cut: c parts its first c tokens from the rest, 0 < c < number of tokens.

    `pieces`: the text of each token. Each place depends on what stands before it alone, so that a trace that is
    continued from there might have been cut there as well.
    """
    found: list[int] = []
    last, text = 0, ""
    for place, piece in enumerate(pieces[:-1], 1):
        text = (text + piece)[-64:]
        if any(answer in text for answer in _ANSWERS):
            break
        if place - last >= gap and text.rstrip(" ").endswith(_ENDS):
            found.append(place)
            last = place
    return found


def draw(places: Sequence[int], count: int, *identity: object) -> list[int]:
    """`count` of the places by chance, in order; all where there are no more. `identity` decides the draw."""
    if len(places) <= count:
        return list(places)
    return sorted(random.Random(seed64("cuts", *identity)).sample(list(places), count))


def flip(places: Sequence[int], count: int, chance: float, *identity: object) -> list[int]:
    """The first `count` of the places at which a coin falls for them; each has its own, which `identity` decides.

    Unlike a draw among all of them, what stands behind a place does not decide whether it is one: a cut is a stopping
    time, for which credit is true on average.
    """
    fallen = (place for place in places if random.Random(seed64("coin", *identity, place)).random() < chance)
    return list(islice(fallen, count))
