"""What a reward is, and what it is held to whenever it is called."""

from __future__ import annotations

import inspect
import math
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, cast

from tasks.problem import CALL_NAMES


class RewardError(ValueError):
    """A reward cannot be found, or broke its contract. The message is one line."""


class Reward(Protocol):
    """TRL's signature. `columns` are the data's own columns, one value per completion."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]: ...


STEPS = "steps"
"""The parameter that makes a function a step reward (`rewards/steps.py`)."""


@dataclass(frozen=True, slots=True)
class Scores:
    """`notes`: row -> what was special about it: why it has no score, or why its score is 0 unread (`unparsed`)."""

    values: list[float | None]
    notes: Mapping[int, str] = field(default_factory=dict)

    @property
    def counts(self) -> Counter[str]:
        """How many rows have which note."""
        return Counter(self.notes.values())


INVALID = "invalid"
"""What a reward notes of an answer that it reads and that breaks the rules: other numbers, a way through a wall."""

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
        if parameter.kind in kinds and parameter.default is inspect.Parameter.empty and name not in CALL_NAMES
    ]


def missing_column(name: str, wanted: Iterable[str], there: Collection[str]) -> str | None:
    """A line that names the column that a reward wants and the data do not have; None where all are there."""
    missing = next((column for column in wanted if column not in there), None)
    if missing is None:
        return None
    if missing == STEPS:
        return (
            f"reward `{name}` takes `{STEPS}`: it is a step reward, which belongs in step_credit.reward of a reinforce "
            "stage, or wants a column of that name, which the data lack"
        )
    return f"reward `{name}` wants the column {missing!r}; there are: {', '.join(sorted(there)) or 'none'}"


def score(reward: Reward, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> Scores:
    """Calls a reward, or awaits it, and holds it to its contract: one number or None per completion, all finite.

    Numbers of NumPy and torch, arrays and tensors of them are taken too.

    Raises:
        RewardError: a column is missing; it raised; it returned another number of scores, or something that is no
            finite number.
    """
    name = f"reward `{name_of(reward)}`"
    if line := missing_column(name_of(reward), columns_of(reward), columns):
        raise RewardError(line)
    scores, notes = called(name, reward, prompts, completions, columns)
    if len(scores) != len(completions):
        raise RewardError(f"{name} returned {len(scores)} scores for {len(completions)} completions")
    return Scores([value_of(name, each, f"completion {index}") for index, each in enumerate(scores)], notes)


def called(
    name: str,
    reward: Callable[..., Any],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Any],
) -> tuple[list[Any], Mapping[int, str]]:
    """What a reward returned, awaited where it has to be, and its notes; `name`: how messages call it.

    Raises:
        RewardError: it raised, or returned no list.
    """
    with _kept_notes() as notes:
        try:
            first, named = _as_taken(reward, prompts, completions)
            returned = reward(*first, **named, **columns)
            if inspect.isawaitable(returned):
                import asyncio

                returned = asyncio.run(_awaited(returned))
            return list(returned), notes
        except RewardError:
            raise
        except (Exception, SystemExit) as error:  # one that exits would end what asks it, without a word
            raise RewardError(raised(name, error, reward)) from error


def _as_taken(
    reward: Callable[..., Any], prompts: Sequence[Any], completions: Sequence[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Prompts and completions by name, as TRL hands them over, where a reward knows the names; else in their order."""
    there = inspect.signature(reward).parameters.values()
    taken = {each.name for each in there if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    if "completions" in taken and ("prompts" in taken or any(each.kind is each.VAR_KEYWORD for each in there)):
        return (), {"prompts": prompts, "completions": completions}
    return (prompts, completions), {}


def value_of(name: str, given: Any, place: str) -> float | None:
    """A number or None as it was given. Raises `RewardError` where it is neither, or not finite."""
    value = None if given is None else _finite(given)
    if given is not None and value is None:
        shown = " ".join(repr(given).split())[:200]
        raise RewardError(f"{name} returned {shown} for {place}; a score is a number or None")
    return value


def _finite(given: Any) -> float | None:
    """The value of a number, of NumPy's and torch's by `item()`; None where that is not finite."""
    try:
        plain = given if isinstance(given, Real) or not hasattr(given, "item") else given.item()
        value = float(plain) if isinstance(plain, Real) else math.nan
    except (TypeError, ValueError, RuntimeError, OverflowError):  # of several elements, or beyond a float
        return None
    return value if math.isfinite(value) else None


def raising_row(
    reward: Reward, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]
) -> int | None:
    """The first completion that a reward raises at when it is asked for that one alone; None where it is none.

    Columns are lists of one value per completion; anything else is handed on as it is.
    """
    for row in range(len(completions)):
        alone = {
            name: [value[row]] if isinstance(value, list | tuple) and len(value) == len(completions) else value
            for name, value in columns.items()
        }
        try:
            score(reward, [prompts[row]], [completions[row]], **alone)
        except RewardError as error:
            if error.__cause__ is not None:
                return row
    return None


def raised(name: str, error: BaseException, function: Callable[..., Any]) -> str:
    """A line on what a function of the user's raised, `name` for short, and at which line of its own file."""
    what = " ".join(str(error).split())[:200]
    return f"{name} raised {type(error).__name__}{_place(error, function)}: {what}"


def _place(error: BaseException, reward: Callable[..., Any]) -> str:
    """The deepest line of the reward's own file that the exception came through; empty where there is none."""
    inner = inspect.unwrap(getattr(reward, "func", reward))
    code = getattr(inner, "__code__", None)
    lines = [each for each in traceback.extract_tb(error.__traceback__) if code and each.filename == code.co_filename]
    return f" in {Path(lines[-1].filename).name}, line {lines[-1].lineno}" if lines else ""


async def _awaited(awaitable: Awaitable[Any]) -> list[float | None]:
    return cast(list[float | None], await awaitable)
