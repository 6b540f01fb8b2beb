"""Reinforcement of masked-diffusion models: what is masked when, which row is whose, what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.denoising import HIDDEN, Denoiser, Schedule
from selfrefine.diffusion import trainer as module
from selfrefine.diffusion.trainer import MaskedCreditTrainer
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer

MASK = 2
PROMPTS = ["ab=", "cd=", "abc=", "d="]
Train = Callable[..., Any]
OUTCOME = StepCredit(credit="outcome", group_filter="none")


def vowels(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [float(sum(letter in "aeiou0123" for letter in text) >= 2) for text in completions]


@pytest.fixture
def train(masked: str, tmp_path: Path) -> Train:
    def run(steps: int = 3, credit: StepCredit = OUTCOME, likelihood: str = "one_step", **options: Any) -> Any:
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import PrinterCallback, ProgressCallback
        from trl import GRPOConfig

        lora, masking = options.pop("lora", False), options.pop("prompt_masking", 0.15)
        step_reward = options.pop("step_reward", None)
        common = {
            "per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 8, "learning_rate": 1e-2,
            "beta": 0.0,
        }  # fmt: skip
        config = GRPOConfig(
            output_dir=str(tmp_path), max_steps=steps, logging_steps=1, report_to=[], bf16=False, use_cpu=True, seed=3,
            save_strategy="no", gradient_checkpointing=False, **(common | options),
        )  # fmt: skip
        torch.manual_seed(0)
        trainer = MaskedCreditTrainer(
            model=masked, args=config, reward_funcs=[vowels], step_credit=credit, mask_id=MASK,
            peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None,
            train_dataset=Dataset.from_dict({"prompt": PROMPTS * 4}), schedule=Schedule(8, 4, 2),
            likelihood=likelihood, prompt_masking=masking, step_reward=step_reward,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.train()
        return trainer

    return run


def rows_of(trainer: Any) -> list[dict[str, float]]:
    return [row for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("likelihood", ["one_step", "trajectory"])
def test_policy_old_policy_and_reference_begin_as_one(train: Train, likelihood: str, lora: bool) -> None:
    """KL is 0 in the first inner iteration, with prompt masks too; later it is not."""
    first, second, *_ = rows_of(
        train(steps=2, likelihood=likelihood, beta=0.04, num_iterations=2, loss_type="bnpo", lora=lora)
    )
    assert first["kl"] == pytest.approx(0, abs=1e-7)
    assert second["kl"] > 1e-7


def test_the_loss_is_d1_s(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against diffu-GRPO's loss, written from its description: clipped ratio, k3 divergence, mean over tokens."""
    seen: list[tuple[float, float]] = []
    original = MaskedCreditTrainer._compute_loss

    def spy(self: Any, model: Any, inputs: Any) -> Any:
        k = self._step // self.args.steps_per_generation % self.num_iterations
        loss = original(self, model, inputs)
        with torch.no_grad():
            logp, _ = self._estimate(model, self._rows, inputs["completion_ids"].shape[1], k, 8)
        old, ref = inputs["old_per_token_logps"][:, k], inputs["ref_per_token_logps"][:, k]
        ratio, advantage = (logp - old).exp(), inputs["advantages"][:, None]
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.5, 1.5) * advantage)
        divergence = (ref - logp).exp() - (ref - logp) - 1
        mask = inputs["completion_mask"]
        wanted = ((-surrogate + 0.04 * divergence) * mask).sum() / mask.sum()
        seen.append((float(loss.detach()), float(wanted)))
        return loss

    monkeypatch.setattr(MaskedCreditTrainer, "_compute_loss", spy)
    train(
        steps=4, num_iterations=4, beta=0.04, epsilon=0.5, loss_type="bnpo", scale_rewards="none",
        use_bias_correction_kl=False,
    )  # fmt: skip
    assert len(seen) == 4 and len({round(wanted, 6) for _, wanted in seen}) > 1
    for found, wanted in seen:
        assert found == pytest.approx(wanted, abs=1e-6)


def test_every_row_meets_every_prompt_mask_once_and_keeps_its_canvas(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: Counter[tuple[int, int]] = Counter()
    canvases: dict[int, list[int]] = {}
    original = MaskedCreditTrainer._compute_loss
    sample = MaskedCreditTrainer._generate_single_turn

    def sampling(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = sample(self, *args, **kwargs)
        canvases.update(zip(self._uids(len(found[0])), self._canvases.ids.tolist(), strict=True))
        return found

    def spy(self: Any, model: Any, inputs: Any) -> Any:
        before = torch.random.get_rng_state()
        loss = original(self, model, inputs)
        assert torch.equal(torch.random.get_rng_state(), before)
        for uid, canvas in zip(inputs["row_uid"].tolist(), inputs["canvas_ids"].tolist(), strict=True):
            met[uid, self._inner] += 1
            assert canvases[uid] == canvas
        return loss

    monkeypatch.setattr(MaskedCreditTrainer, "_compute_loss", spy)
    monkeypatch.setattr(MaskedCreditTrainer, "_generate_single_turn", sampling)
    train(steps=6, num_iterations=3, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    assert len(canvases) == 16, "two rounds of eight rows"
    assert met == Counter({(uid, inner): 1 for uid in canvases for inner in range(3)})


@pytest.mark.parametrize("credit", ["progress", "segments", "one_step"])
def test_credit_changes_the_gradient_and_counts_what_branches_revealed(
    train: Train, monkeypatch: pytest.MonkeyPatch, credit: Any
) -> None:
    revealed: list[int] = []
    run = MaskedCreditTrainer._run

    def spy(self: Any, canvases: Any, guess_at: Any = ()) -> Any:
        before = int((canvases.step_map != HIDDEN).sum())
        made, denoiser = run(self, canvases, guess_at)
        revealed.append(int((made.step_map != HIDDEN).sum()) - before)
        return made, denoiser

    monkeypatch.setattr(MaskedCreditTrainer, "_run", spy)
    plain = train()
    alone = sum(revealed)
    assert plain.generated_tokens == alone
    revealed.clear()
    found = train(credit=StepCredit(credit=credit, group_filter="none"))
    rows = rows_of(found)
    branches = sum(row.get("step_aware/branch_tokens", 0) for row in rows)
    assert sum(revealed) == found.generated_tokens == branches + sum(row["step_aware/rollout_tokens"] for row in rows)
    assert (branches > 0) is (credit != "one_step")
    for row in rows:  # what is left of a step's time is the loss and its gradient
        parts = row["step_aware/rollout_seconds"], row["step_aware/branch_seconds"]
        assert min(parts) > 0 and sum(parts) < row["step_time"]
    assert "step_aware/branch_seconds" not in rows_of(plain)[0]
    assert [row["grad_norm"] for row in rows] != [row["grad_norm"] for row in rows_of(plain)]
    without = train(credit=StepCredit(credit=credit, group_filter="none", weight=0))
    assert [(r["loss"], r["grad_norm"]) for r in rows_of(without)] == [
        (r["loss"], r["grad_norm"]) for r in rows_of(plain)
    ]


def test_branches_resume_the_row_they_are_of(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = 0
    original = MaskedCreditTrainer._continued

    def spy(self: Any, kept: Any, wanted: Any) -> Any:
        nonlocal checked
        found = original(self, kept, wanted)
        for (row, step), each in zip(wanted, found, strict=True):
            before = (self._canvases.step_map[row] != HIDDEN) & (self._canvases.step_map[row] < step)
            for ids in each.completions:
                for place in before.nonzero().flatten().tolist():
                    assert place >= len(ids) or ids[place] == int(self._canvases.ids[row, place])
            checked += len({tuple(ids) for ids in each.completions}) > 1
        return found

    monkeypatch.setattr(MaskedCreditTrainer, "_continued", spy)
    train(credit=StepCredit(credit="segments", branches=3))
    assert checked > 0


def test_what_a_part_reached_is_not_shrunk_where_baselines_alone_are(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw: list[torch.Tensor] = []
    seen: list[tuple[torch.Tensor, ...]] = []
    calibrated, telescope = module.credit.calibrated, module.credit.telescope

    def shrink(outcome: Any, values: Any, size: int) -> Any:
        raw.append(values)
        return calibrated(outcome, values, size)

    def spy(outcome: Any, values: Any, size: int, baselines: Any) -> Any:
        seen.append((outcome, values, baselines))
        return telescope(outcome, values, size, baselines)

    monkeypatch.setattr(module.credit, "calibrated", shrink)
    monkeypatch.setattr(module.credit, "telescope", spy)
    train(credit=StepCredit(credit="segments", branches=3, calibrate="baselines"))
    assert seen and len(seen) == len(raw)
    for values, (outcome, reached, baselines) in zip(raw, seen, strict=True):
        assert torch.allclose(reached, (3 * values + outcome[:, None]) / 4, equal_nan=True)
        assert torch.equal(
            baselines.isnan() | (baselines == calibrated(outcome, values, 4)), torch.ones_like(baselines) > 0
        )


def test_segments_follow_the_steps_and_their_credit_sums_to_the_outcome(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    spreads: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = module.credit.spread

    def spy(advantages: Any, outcome: Any, gained: Any, segments: Any, size: int, **options: Any) -> Any:
        spreads.append((segments, gained.sum(1) - (outcome - module.credit.mean_of_others(outcome, size))))
        return original(advantages, outcome, gained, segments, size, **options)

    monkeypatch.setattr(module.credit, "spread", spy)
    train(credit=StepCredit(credit="segments", calibrate="none"))
    assert spreads
    for segments, rest in spreads:
        assert rest.abs().max() < 1e-6
        assert set(segments.flatten().tolist()) <= {-1, 0, 1}
        # One cut, where the second block of four begins.
        assert (segments[:, :4] <= 0).all() and (segments[:, 4:] != 0).sum() > 0


def test_the_parts_that_a_step_reward_is_asked_about_are_blocks(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four tokens; of a row that has ended in its first one there is nothing to be said."""
    asked: list[list[list[str]]] = []
    blocks: list[list[str]] = []
    values = MaskedCreditTrainer._values
    ended = 0

    def spy(self: Any, kept: Any, places: Any) -> Any:
        nonlocal ended
        for row, cut in enumerate(places.flatten().tolist()):
            ids = list(kept.completion_ids[row])
            ended += len(ids) <= 4
            assert cut in (-1, 2) and not (cut == 2 and len(ids) <= 4)
            if cut == 2:
                blocks.append(self.processing_class.batch_decode([ids[:4], ids[4:]], skip_special_tokens=True))
        found = values(self, kept, places)
        assert torch.allclose(found, torch.where(places == 2, 0.25, torch.nan), equal_nan=True)
        return found

    def quarter(prompts: Any, completions: Any, steps: Any, **columns: Any) -> Any:
        asked.append([list(parts) for parts in steps])
        assert ["".join(parts) for parts in steps] == completions
        return [[0.25] * len(parts) for parts in steps]

    monkeypatch.setattr(MaskedCreditTrainer, "_values", spy)
    chosen = {"credit": "step_reward", "reward": "quarter"}
    found = train(steps=6, credit=StepCredit.model_validate(chosen), step_reward=quarter)
    assert [parts for call in asked for parts in call] == blocks and len(blocks) > 4
    assert ended, "no row has ended early"
    assert not any("step_aware/branch_passes" in row for row in rows_of(found))
    with pytest.raises(ValueError, match="give cut: block"):
        train(credit=StepCredit.model_validate({**chosen, "cut": "uniform"}), step_reward=quarter)


def test_cuts_fall_between_blocks_or_before_any_step(train: Train) -> None:
    for cut, steps in (("block", [2]), ("uniform", [1, 2, 3])):
        found = train(steps=1, credit=StepCredit(credit="one_step", cuts=3, cut=cut))
        assert sorted(found._canvases.guesses) == steps


def test_what_cannot_work_is_refused(train: Train, masked: str) -> None:
    with pytest.raises(ValueError, match="canvas of 8 tokens"):
        train(max_completion_length=12)
    assert StepCreditTrainer.guesses is False


def test_no_pass_of_the_sampler_has_more_rows_than_a_batch(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many branches a round of several batches has."""
    passes: list[tuple[int, int]] = []
    step = Denoiser._step

    def spy(self: Any, canvases: Any, rows: list[int], *args: Any) -> None:
        passes.append((len(canvases.starts), len(rows)))
        step(self, canvases, rows, *args)

    monkeypatch.setattr(Denoiser, "_step", spy)
    train(credit=StepCredit(branches=5), gradient_accumulation_steps=2, prompt_masking=0.0)
    assert max(rows for rows, _ in passes) > 16, "there were branches of more rows than a round has"
    assert max(at_once for _, at_once in passes) == 8
