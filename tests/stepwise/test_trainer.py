"""The trainer is TRL's, bit for bit, where no credit is given; and where it is, it is that of the pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from selfrefine.stepwise import trainer as module
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer

LOSSES = ["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
Train = Callable[..., Any]


def log_of(trainer: Any) -> list[tuple[float, float]]:
    return [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]


def test_trl_takes_advantages_of_both_shapes(train: Train) -> None:
    """No trainer of TRL's own gives (B, T) any more, so only this notices when it is no longer taken."""

    class Broad(GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            output["advantages"] = output["advantages"][:, None].expand(output["completion_mask"].shape)
            return output

    assert log_of(train(Broad)) == log_of(train(GRPOTrainer))


@pytest.mark.parametrize("loss", LOSSES)
def test_without_weight_every_bit_is_trl_s(train: Train, loss: str) -> None:
    plain = log_of(train(GRPOTrainer, loss_type=loss, num_iterations=2))
    weightless = StepCredit(weight=0, group_filter="none")
    assert (
        log_of(train(StepCreditTrainer, loss_type=loss, num_iterations=2, extra={"step_credit": weightless})) == plain
    )
    assert any(norm > 0 for _, norm in plain)


@pytest.mark.parametrize(
    "options", [{"lora": True}, {"beta": 0.1}, {"scale_rewards": "none"}, {"lora": True, "beta": 0.1}]
)
def test_without_weight_every_bit_is_trl_s_elsewhere(train: Train, options: dict[str, Any]) -> None:
    outcome = StepCredit(credit="outcome", group_filter="outcome")
    # With one reward of success, a decided group weighs nothing anyway.
    assert log_of(train(StepCreditTrainer, extra={"step_credit": outcome}, **options)) == log_of(
        train(GRPOTrainer, **options)
    )


@pytest.mark.parametrize("credit", ["progress", "segments"])
def test_with_weight_it_differs_and_branches_are_counted(
    train: Train, monkeypatch: pytest.MonkeyPatch, credit: str
) -> None:
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(2, len(pieces) - 1, 3)))
    found = train(StepCreditTrainer, extra={"step_credit": StepCredit(credit=credit, cuts=2)})
    rows = [row for row in found.state.log_history if "loss" in row]
    assert log_of(found) != log_of(train(GRPOTrainer))
    assert sum(row.get("step_aware/branch_tokens", 0) for row in rows) > 0
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in rows)


def test_branches_begin_with_their_prefix_and_stay_within_the_limit(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))
    seen: list[tuple[list[int], list[list[int]]]] = []
    sample = module.Branches.sample

    def spy(self: Any, begun: Any, count: int) -> Any:
        found = sample(self, begun, count)
        seen.extend((each.prefix, branches) for each, branches in zip(begun, found, strict=True))
        return found

    monkeypatch.setattr(module.Branches, "sample", spy)
    train(StepCreditTrainer, extra={"step_credit": StepCredit(cuts=3, branches=3)})
    assert seen
    for prefix, branches in seen:
        assert len(branches) == 3
        for ids in branches:
            assert ids[: len(prefix)] == prefix and len(prefix) < len(ids) <= 12
    assert len({tuple(ids) for _, branches in seen for ids in branches}) > len(seen), "branches of a cut differ"


def constant(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [0.0] * len(completions)


def form(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [len(text) / 12 for text in completions]


def test_all_wrong_groups_weigh_exactly_nothing_whatever_their_form(train: Train) -> None:
    """The published failure: format points alone move the policy where no answer is right."""
    rewards = [constant, form]
    for filtering, moved in (("outcome", False), ("none", True)):
        found = train(
            trainer_with(rewards), extra={"step_credit": StepCredit(outcome="constant", group_filter=filtering)}
        )
        assert any(norm > 0 for _, norm in log_of(found)) is moved
        assert sum(row.get("step_aware/branch_tokens", 0) for row in found.state.log_history) == 0


def trainer_with(rewards: list[Any]) -> Any:
    class Made(StepCreditTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "reward_funcs": rewards})

    return Made


@pytest.mark.parametrize(
    ("settings", "options", "complaint"),
    [
        (StepCredit(outcome="letters"), {}, "no reward is called `letters`; there are: letters_of_prompt"),
        (StepCredit(), {"temperature": 0.0}, "temperature 0"),
        (StepCredit(), {"multi_objective_aggregation": "normalize_then_sum"}, "sum_then_normalize"),
    ],
)
def test_what_cannot_work_is_refused(train: Train, settings: StepCredit, options: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        train(StepCreditTrainer, extra={"step_credit": settings}, **options)
