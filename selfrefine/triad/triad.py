"""Three parts, each predictable from the others: (image, question, answer), (state, action, next state), and so on.

Each part can be predicted from the other two, which makes a triad checkable from inside. The names are causal:
a *context* and a *cause* give an *effect*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

ContextT = TypeVar("ContextT", contravariant=True)
Part = Literal["cause", "effect"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proposed triad for a context. `reason` names why it cannot be used; then the parts may be empty."""

    cause: str
    effect: str
    raw: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Support:
    """What could stand in a hidden part: an exact set of values, or samples of it (repeats kept).

    A hidden part is a set, since several causes can have one effect: membership is asked, not equality with the one
    value that happened to be recorded. `errors` say why samples could not be drawn at all; a sample that holds no value
    is merely missing from `values`.
    """

    values: Sequence[str]
    exact: bool = False
    errors: Sequence[str] = field(default_factory=tuple)

    def share(self, matches: Sequence[float | None], threshold: float = 1.0) -> float | None:
        """How much the support backs a value, given `matches[i]`, the comparison of that value with `values[i]`.

        An exact set answers 1 or 0. Samples answer with the share that match; comparisons that could not say are left
        out. None where nothing is left.
        """
        known = [match >= threshold for match in matches if match is not None]
        if self.exact:
            return float(any(known))
        return sum(known) / len(known) if known else None


class Triad(Protocol, Generic[ContextT]):
    """The four operations of a triad. Every method takes and returns batches, in order."""

    def propose(self, contexts: Sequence[ContextT], n: int, seed: int) -> list[list[Candidate]]:
        """`n` candidates per context."""
        ...

    def invert(self, contexts: Sequence[ContextT], effects: Sequence[str], n: int, seed: int) -> list[Support]:
        """The causes that could have had each effect in its context: an exact set or `n` samples."""
        ...

    def forward(self, contexts: Sequence[ContextT], causes: Sequence[str], n: int, seed: int) -> list[Support]:
        """The effects each cause could have in its context: an exact set or `n` samples."""
        ...

    def compare(self, part: Part, xs: Sequence[str], ys: Sequence[str]) -> list[float | None]:
        """How alike two values of a part are, in [0, 1]; None where it cannot be said."""
        ...
