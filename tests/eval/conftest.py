from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from eval.trial import Trial

_ANSWERS = {"correct": "right", "wrong": "other", "unparsed": None, "truncated": None, "ungraded": "right"}
_REWARDS = {"correct": 1.0, "wrong": 0.0}


def _make(problem: str, outcome: str, sample: int = 0, **fields: Any) -> Trial:
    answer = fields.pop("answer", _ANSWERS[outcome])
    reward = _REWARDS.get(outcome)
    values: dict[str, Any] = {
        "label": "tune",
        "suite": "s",
        "suite_digest": "d",
        "problem_id": problem,
        "cluster": problem,
        "sample": sample,
        "seed": 0,
        "prompt_sha": "x",
        "completion": "",
        "finish": "length" if outcome == "truncated" else "stop",
        "extract": {"strict": answer, "flexible": answer},
        "reward": {"strict": reward, "flexible": reward},
        "outcome": outcome,
    }
    return Trial.model_validate(values | fields)


@pytest.fixture(scope="session")
def make_trial() -> Callable[..., Trial]:
    """(problem, outcome, sample=0, **fields of the record); `answer` is what both extractions found."""
    return _make


@pytest.fixture(scope="session")
def make_trials() -> Callable[..., list[Trial]]:
    """(outcomes of each problem's samples, **fields): trials of the problems p0, p1, …"""

    def make(problems: Sequence[Sequence[str]], **fields: Any) -> list[Trial]:
        return [
            _make(f"p{row}", outcome, sample, **fields)
            for row, outcomes in enumerate(problems)
            for sample, outcome in enumerate(outcomes)
        ]

    return make
