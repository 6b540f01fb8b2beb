"""What a reward is, and what it is held to whenever it is called."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

TRAINER_COLUMNS = frozenset({"completion_ids", "trainer_state", "log_extra", "log_metric", "environments"})
"""What TRL's trainers hand over besides the data's own columns."""


class RewardError(ValueError):
    """A reward cannot be found, or broke its contract. The message is one line."""


class Reward(Protocol):
    """TRL's signature. `columns` are the data's own columns, one value per completion."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]: ...


@dataclass(frozen=True, slots=True)
class Scores:
    """`notes`: row -> what was special about it: why it has no score, or why its score is 0 unread (`unparsed`)."""

    values: list[float | None]
    notes: Mapping[int, str] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        """How many rows have which note."""
        return Counter(self.notes.values())


_notes: ContextVar[dict[int, str] | None] = ContextVar("notes", default=None)


def note(row: int, reason: str) -> None:
    """Called by a reward while it scores: says what was special about a row. Kept only where `score` called it."""
    kept = _notes.get()
    if kept is not None:
        kept[row] = reason


@contextmanager
def _kept_notes() -> Iterator[dict[int, str]]:
    kept: dict[int, str] = {}
    token = _notes.set(kept)
    try:
        yield kept
    finally:
        _notes.reset(token)


def name_of(reward: Callable[..., Any]) -> str:
    """A name to show: of the function, of the function inside a partial, else of the class."""
    inner = getattr(reward, "func", reward)
    return str(getattr(inner, "__name__", type(inner).__name__))


def columns_of(reward: Callable[..., Any]) -> list[str]:
    """The data columns that a reward cannot do without: its parameters without a default."""
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        name
        for name, parameter in inspect.signature(reward).parameters.items()
        if parameter.kind in kinds
        and parameter.default is inspect.Parameter.empty
        and name not in {"prompts", "completions", *TRAINER_COLUMNS}
    ]


def score(reward: Reward, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Scores:
    """Calls a reward, or awaits it, and holds it to its contract: one float or None per completion, all finite.

    Raises:
        RewardError: a column is missing; it raised; it returned another number of scores, or something that is no
            finite number.
    """
    name = name_of(reward)
    if missing := [column for column in columns_of(reward) if column not in columns]:
        raise RewardError(
            f"reward `{name}` wants the column {missing[0]!r}; there are: {', '.join(sorted(columns)) or 'none'}"
        )
    with _kept_notes() as notes:
        try:
            returned = reward(prompts, completions, **columns)
            if inspect.isawaitable(returned):
                import asyncio

                returned = asyncio.run(_awaited(returned))
            scores = list(returned)
        except RewardError:
            raise
        except Exception as error:
            what = (str(error).splitlines() or [""])[0][:200]
            raise RewardError(f"reward `{name}` raised {type(error).__name__}: {what}") from error
    if len(scores) != len(completions):
        raise RewardError(f"reward `{name}` returned {len(scores)} scores for {len(completions)} completions")
    for index, value in enumerate(scores):
        if value is not None and not (isinstance(value, int | float) and abs(value) < float("inf")):
            raise RewardError(f"reward `{name}` returned {value!r} for completion {index}; a score is a number or None")
    return Scores([None if value is None else float(value) for value in scores], notes)


async def _awaited(awaitable: Awaitable[Any]) -> list[float | None]:
    return cast(list[float | None], await awaitable)
