"""The scorers of reasoning-gym as rewards, `rg:NAME`, for problems of the task of the same name.

A scorer is called in a process that can be killed, with the final answer alone, and never where that would be run as
code or where a scorer calls wrong answers right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rewards.answer import final_answer
from rewards.contract import RewardError, note
from rewards.pool import Verdict, shared
from rewards.text import Completion, text_of
from tasks.gym_package import PREFIX, known, outline
from tasks.problem import TaskError

MOST_CHARACTERS = 16_384
"""Of an answer; the longest gold answers, boards of 30 by 30, have about 2,000."""
SECONDS = 10.0
"""For one call: the first to a dataset opens it, word lists and all."""
_WORKER = "rewards.gym_worker"

_EVAL = "its scorer runs the answer as Python (eval)"
_SYMPY = "its scorer runs the answer as Python (sympy's parse_expr)"
REFUSED: Mapping[str, tuple[str, str | None]] = {
    "binary_matrix": (_EVAL, "exact_match"),
    "n_queens": (_EVAL, None),
    "spiral_matrix": (_EVAL, "exact_match"),
    "string_insertion": (_EVAL, "exact_match"),
    "countdown": (_SYMPY, "countdown"),
    "intermediate_integration": (_SYMPY, None),
    "polynomial_multiplication": (_SYMPY, None),
    "puzzle24": (_SYMPY, "countdown"),
    "simple_integration": (_SYMPY, None),
    "complex_arithmetic": ("its scorer gives 1 to nan", None),
    "coin_flip": ("its scorer gives 1 to any beginning of the right number, such as 0", "number"),
    "game_of_life_halting": ("its scorer gives 1 to any text where the gold answer is False", "exact_match"),
}
"""Dataset → why its scorer is not called, and the reward that grades its problems instead, if there is one.

All 105 scorers of reasoning-gym 0.1.25 were read. Two more call `eval`, on texts of the dataset's own alone:
`bitwise_arithmetic` on its question, `number_sorting` on its gold answer.
"""


class Scorer:
    """The score that reasoning-gym gives the final answer, from 0 to 1; part of it may be for part of an answer.

    `entry` is the column of the task of the same name. None where the scorer did not come to an end in `seconds`, or
    fails whatever the answer; 0, noted as `unparsed`, where it stumbles over this answer. Pickles as its name.
    """

    def __init__(self, dataset: str) -> None:
        """Raises `RewardError` where there is no such dataset, or its scorer is refused."""
        self.dataset = _allowed(dataset)
        self.__name__ = f"{PREFIX}{dataset}"

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Completion],
        *,
        entry: Sequence[str | None],
        seconds: float = SECONDS,
        **columns: Any,
    ) -> list[float | None]:
        scores: list[float | None] = [0.0] * len(completions)
        rows: list[int] = []
        calls: list[tuple[str, str, Any, str]] = []
        for row, (completion, text) in enumerate(zip(completions, entry, strict=True)):
            given, answer = self._entry(text), final_answer(text_of(completion))
            if given is None:
                note(row, "no gold")
                scores[row] = None
            elif answer is None:
                note(row, "unparsed")
            elif len(answer) > MOST_CHARACTERS:
                note(row, "too large")
            else:
                rows.append(row)
                calls.append((self.dataset, json.dumps(given["settings"]), given["entry"], answer))
        if calls:
            from rewards.gym_worker import judge

            for row, verdict in zip(rows, shared(_WORKER).map(judge, calls, seconds), strict=True):
                scores[row] = _score_of(row, verdict)
        return scores

    def __reduce__(self) -> tuple[Any, ...]:
        return Scorer, (self.dataset,)

    def _entry(self, text: str | None) -> Mapping[str, Any] | None:
        """What the task wrote, None where this is not an entry of this dataset."""
        try:
            given = json.loads(text or "")
        except ValueError:
            return None
        return given if isinstance(given, dict) and given.get("dataset") == self.dataset else None


def summary(dataset: str) -> str:
    """A line on the scorer. Raises `RewardError` where there is no such dataset, or its scorer is refused."""
    return f"reasoning-gym's own score of {_allowed(dataset)}: {outline(dataset).summary}"


def version() -> str:
    """Of the package that scores."""
    from importlib.metadata import version as version_of

    return f"reasoning-gym {version_of('reasoning-gym')}"


def _allowed(dataset: str) -> str:
    try:
        known(dataset)
    except TaskError as error:
        raise RewardError(str(error)) from None
    if dataset in REFUSED:
        why, instead = REFUSED[dataset]
        way_out = f"use `{instead}`" if instead else "no other reward that ships grades its answers: write one"
        raise RewardError(f"reward `{PREFIX}{dataset}` is refused: {why}; {way_out}")
    return dataset


def _score_of(row: int, verdict: Verdict) -> float | None:
    if verdict.reason is not None:
        note(row, verdict.reason)
        return None
    if verdict.value is None:
        note(row, "unparsed")
        return 0.0
    score = float(verdict.value)
    if not 0 <= score <= 1:
        note(row, "out of range")
        return None
    return score
