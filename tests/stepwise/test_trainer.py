"""The trainer is TRL's, bit for bit, where no credit is given; and where it is, it is that of the pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rewards.contract import RewardError
from selfrefine.stepwise import trainer as module
from selfrefine.stepwise.credit import group_mean
from selfrefine.stepwise.grpo import GRPOTrainer
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer

LOSSES = ["grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
Train = Callable[..., Any]


def log_of(trainer: Any) -> list[tuple[float, float]]:
    return [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize(("loss", "lora"), [*((loss, False) for loss in LOSSES), ("dapo", True)])
def test_trl_takes_advantages_of_both_shapes(train: Train, loss: str, lora: bool) -> None:
    """No trainer of TRL's own gives (B, T) any more, so only this notices when it is no longer taken."""
    options = {"loss_type": loss, "num_iterations": 2, "lora": lora}

    class Broad(GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            output["advantages"] = output["advantages"][:, None].expand(output["completion_mask"].shape)
            return output

    assert log_of(train(Broad, **options)) == log_of(train(GRPOTrainer, **options))


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

    def spy(self: Any, begun: Any, count: int, at_once: int) -> Any:
        found = sample(self, begun, count, at_once)
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


def wrong(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [0.0] * len(completions)


def right(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [1.0] * len(completions)


def form(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    return [len(text) / 12 for text in completions]


@pytest.mark.parametrize("outcome", [wrong, right])
def test_decided_groups_run_no_branch_and_weigh_exactly_nothing_whatever_their_form(train: Train, outcome: Any) -> None:
    """The published failure: format points alone move the policy where no answer is right."""
    for filtering, moved in (("outcome", False), ("none", True)):
        chosen = StepCredit(credit="progress", gate="advantage", outcome=outcome.__name__, group_filter=filtering)
        found = train(trainer_with([outcome, form]), extra={"step_credit": chosen})
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


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_credit_is_on_the_scale_of_trl_s_advantages(train: Train, scale: str) -> None:
    """To the last bit, with rows that have no score."""
    checked = []

    class Spied(trainer_with([sometimes])):  # type: ignore[misc]
        def _credited(self, kept: Any, outcome: Any, advantages: Any, mask: Any) -> Any:
            means = group_mean(kept.rewards[:, 0], 4)
            again = (kept.rewards[:, 0] - means) / self._scale(kept.rewards)
            checked.append(torch.equal(again.nan_to_num(0), advantages))
            return super()._credited(kept, outcome, advantages, mask)

    train(Spied, scale_rewards=scale, extra={"step_credit": StepCredit()})
    assert checked == [True] * 3


def sometimes(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
    return [None if text.startswith(tuple("abcdefgh")) else len(text) / 7 for text in completions]


def test_rows_keep_their_advantages_through_shuffles_and_splits(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))
    given: dict[tuple[int, ...], list[list[float]]] = defaultdict(list)  # equal completions may be cut elsewhere
    used: list[tuple[tuple[int, ...], list[float]]] = []

    def rows(batch: Any) -> list[tuple[tuple[int, ...], list[float]]]:
        return [
            (tuple(ids[mask.bool()].tolist()), advantages[mask.bool()].tolist())
            for ids, mask, advantages in zip(
                batch["completion_ids"], batch["completion_mask"], batch["advantages"], strict=True
            )
        ]

    class Spied(StepCreditTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            for ids, advantages in rows(output):
                given[ids].append(advantages)
            return output

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            used.extend(rows(inputs))
            return super()._compute_loss(model, inputs)

    train(Spied, gradient_accumulation_steps=4, num_iterations=2, steps=4, extra={"step_credit": StepCredit(cuts=2)})
    assert len(used) == 4 * 4 * 8 and len(given) > 32
    assert all(advantages in given[ids] for ids, advantages in used)
    assert any(len(set(advantages)) > 1 for _, advantages in used), "credit differs within a row"


def test_branches_without_a_score_are_left_out_and_never_0(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))
    expected: list[float] = []
    found: list[float] = []

    def unsure(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        if len(columns["log_extra"].__code__.co_names) == 0:  # only branches have nowhere to log to
            scores = [None if len(text) % 3 else 1.0 for text in completions]
            for start in range(0, len(scores), 2):
                known = [score for score in scores[start : start + 2] if score is not None]
                expected.append(sum(known) / len(known) if known else float("nan"))
            return scores
        return list(letters(prompts, completions))

    class Spied(trainer_with([unsure])):  # type: ignore[misc]
        def _values(self, kept: Any, places: Any) -> Any:
            values = super()._values(kept, places)
            found.extend(values[places >= 0].tolist())
            return values

    trainer = train(Spied, extra={"step_credit": StepCredit(cuts=2, branches=2)})
    assert found == pytest.approx(expected, nan_ok=True)
    assert 1.0 in found and any(value != value for value in found) and 0.0 not in found
    name = "step_aware/branches_unscored"  # not of a step in which every group is decided
    shares = [row[name] for row in trainer.state.log_history if name in row]
    assert shares and all(0 < share < 1 for share in shares)
    assert all(torch.isfinite(torch.tensor(log_of(trainer))).flatten())


def letters(prompts: Any, completions: Any) -> list[float]:
    return [float(any(sign in prompt for sign in text)) for prompt, text in zip(prompts, completions, strict=True)]


@pytest.mark.parametrize(
    ("returned", "complaint"),
    [
        (lambda texts: [float("nan")] * len(texts), "returned nan for completion 0"),
        (lambda texts: [1.0], r"returned 1 scores for \d+ completions"),
        (lambda texts: ["1"] * len(texts), "returned '1' for completion 0"),
        (lambda texts: 1 / 0, r"raised ZeroDivisionError in test_trainer.py, line \d+: division by zero"),
    ],
)
def test_a_reward_that_breaks_on_branches_is_named(
    train: Train, monkeypatch: pytest.MonkeyPatch, returned: Any, complaint: str
) -> None:
    monkeypatch.setattr(module, "boundaries", lambda pieces, gap: list(range(1, len(pieces))))

    def breaks(prompts: Any, completions: Any, **columns: Any) -> Any:
        branches = len(columns["log_extra"].__code__.co_names) == 0
        return returned(completions) if branches else letters(prompts, completions)

    with pytest.raises(RewardError, match=f"reward `breaks` {complaint}"):
        train(trainer_with([breaks]), extra={"step_credit": StepCredit()})


def test_none_of_one_reward_among_several_is_never_0(train: Train) -> None:
    def right(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        return [1.0, 0.0, 0.0, 1.0] * 2

    def neat(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        return [1.0, None, 0.0, None] * 2

    seen: list[list[float]] = []

    class Spied(StepCreditTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "reward_funcs": [right, neat]})

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            seen.append(output["advantages"].tolist())
            return output

    chosen = StepCredit(credit="outcome", group_filter="none", outcome="right")
    train(Spied, steps=1, extra={"step_credit": chosen}, scale_rewards="none")
    # By hand: sums of 2, 0 + 1/2, 0, 1 + 1/2, and their mean of 1.
    assert seen == [pytest.approx([1.0, -0.5, -1.0, 0.5] * 2)]
