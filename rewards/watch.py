"""A reward that is watched while it trains: one that says nothing is noticed before the hours are spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rewards.contract import Reward, RewardError, score

PATIENCE = 20
"""Batches in a row that must say nothing before it is said."""


class Watched:
    """Calls a reward under its contract, counts what it notes, and speaks up when nothing can be learnt from it.

    A reward without any score for `patience` batches ends the training. One that gives every completion the same, or
    the same to every completion of a prompt, is warned of once: early in a training that may be the truth.
    """

    def __init__(
        self, reward: Reward, name: str, group: int, warn: Callable[[str], None], patience: int = PATIENCE
    ) -> None:
        self.__name__ = name  # TRL logs under it
        self._reward, self._group, self._warn, self._patience = reward, group, warn, patience
        self.notes: Counter[str] = Counter()
        self.unscored = 0
        self._silent = self._constant = self._level = 0
        self._last: float | None = None

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        found = score(self._reward, prompts, completions, **columns)
        self.notes.update(found.counts)
        unscored = sum(value is None for value in found.values)
        self.unscored += unscored
        log = columns.get("log_metric")
        if log is not None:
            if self.unscored:
                log(f"rewards/{self.__name__}/None", unscored / len(completions))
            for reason in sorted(self.notes):
                log(f"rewards/{self.__name__}/{reason}", found.counts[reason] / len(completions))
        self._look(found.values)
        return found.values

    def _look(self, values: Sequence[float | None]) -> None:
        known = {value for value in values if value is not None}
        self._silent = 0 if known else self._silent + 1
        if self._silent == self._patience:
            raise RewardError(
                f"reward `{self.__name__}` scored none of the completions of {self._patience} batches{self._why()}; "
                f"try it: trivium rewards check"
            )
        if not known:
            return
        same = len(known) == 1 and (self._last is None or known == {self._last})
        self._constant = self._constant + 1 if same else 0
        self._last = next(iter(known)) if len(known) == 1 else None
        if self._constant == self._patience:
            self._warn(
                f"reward `{self.__name__}` gave every completion {self._last:g} for {self._patience} batches"
                f"{self._why()}: nothing can be learnt from it"
            )
        groups = [values[start : start + self._group] for start in range(0, len(values), self._group)]
        level = all(len(set(group)) == 1 for group in groups)
        self._level = self._level + 1 if level else 0
        if self._level == self._patience and self._constant < self._patience:
            self._warn(
                f"reward `{self.__name__}` gave all completions of each prompt the same for {self._patience} batches: "
                "the problems are too easy or too hard, or the temperature is too low"
            )

    def _why(self) -> str:
        return (
            f" ({', '.join(f'{count} {reason}' for reason, count in self.notes.most_common(3))})" if self.notes else ""
        )
