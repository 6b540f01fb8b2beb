"""Beside other rewards, with a weight of its own and 2 for success, the outcome is shared out whole."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any

import pytest

from selfrefine.stepwise import trainer as module
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer

GROUP, CUT, SUCCESS, CREDIT = 4, 4, 2.0, 0.5
WEIGHTS = {"form": 0.25, "graded": 3.0}


def form(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [len(set(text)) / 12 for text in completions]


def graded(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [SUCCESS * any(sign in prompt for sign in text) for prompt, text in zip(prompts, completions, strict=True)]


@pytest.mark.parametrize("scale", ["none", "group"])
@pytest.mark.parametrize("credit", ["segments", "progress"])
def test_tokens_are_worth_what_the_rewards_add_up_to(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, credit: Any, scale: str
) -> None:
    """Written out row by row: form stays spread evenly, and each part of a trace gets what it changed in success; or
    the whole trace what was likely to come of its first part, on the scale of success from 0 to 1."""
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: [CUT] if len(pieces) > CUT else [])
    changed: list[bool] = []

    class Spied(StepCreditTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "reward_funcs": [form, graded]})

        def _outcomes(self, kept: Any, branches: Any) -> list[float]:
            texts = self.processing_class.batch_decode([ids for _, ids in branches], skip_special_tokens=True)
            for (row, _), text in zip(branches, texts, strict=True):
                self.branches.setdefault(row, []).append(*graded([kept.prompts[row]], [text]))
            return super()._outcomes(kept, branches)

        def _calculate_rewards(self, *args: Any) -> Any:
            self.branches: dict[int, list[float]] = {}
            self.raw = super()._calculate_rewards(*args)
            return self.raw

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            expected = by_hand(self.raw.tolist(), self.branches, credit, scale)
            mask, given = output["completion_mask"], output["advantages"]
            lengths = mask.sum(1).tolist()
            given = given if given.ndim == 2 else given[:, None].expand(mask.shape)
            for row, (whole, first, second) in enumerate(expected):
                wanted = [first] * min(CUT, lengths[row]) + [second] * max(0, lengths[row] - CUT)
                assert given[row, : lengths[row]].tolist() == pytest.approx(wanted, abs=1e-5)
                changed.append(abs(first - whole) > 0.05)
            return output

    chosen = StepCredit(
        credit=credit, outcome="graded", outcome_max=SUCCESS, weight=CREDIT, branches=3, calibrate="none",
        group_filter="none",
    )  # fmt: skip
    train(Spied, scale_rewards=scale, reward_weights=list(WEIGHTS.values()), extra={"step_credit": chosen})
    assert sum(changed) >= 4, "few rows have got credit"


def by_hand(
    raw: list[list[float]], branches: dict[int, list[float]], credit: str, scale: str
) -> list[tuple[float, float, float]]:
    """What each row is worth without credit, and its tokens before and after the cut with it.

    `raw`: form and graded of each row; `branches`: graded of what goes on from the cut of a row that is open.
    """
    found = []
    for start in range(0, len(raw), GROUP):
        rows = raw[start : start + GROUP]
        totals = [WEIGHTS["form"] * of_form + WEIGHTS["graded"] * of_answer for of_form, of_answer in rows]
        divisor = stdev(totals) + 1e-4 if scale == "group" else 1.0
        answers = [of_answer for _, of_answer in rows]
        for place, answer in enumerate(answers):
            whole = (totals[place] - fmean(totals)) / divisor
            others, share = fmean([*answers[:place], *answers[place + 1 :]]), answer - fmean(answers)
            value = fmean(branches[start + place]) if start + place in branches else None
            worth = CREDIT * WEIGHTS["graded"] / divisor
            if credit == "progress":
                assert value is None or (whole > 0 and share > 0), "a row that is not open was branched"
                first = second = whole
                if value is not None:
                    first = second = whole + CREDIT * (value - fmean(answers)) / SUCCESS / divisor
            elif value is None:  # one segment, with the others' mean as its baseline as that of a first one
                first = second = whole + worth * (answer - others - share)
            else:
                first = whole + worth * (value - others - share)
                second = whole + worth * (answer - value - share)
            found.append((whole, first, second))
    return found
