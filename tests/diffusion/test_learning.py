"""Where every part of an answer adds to its success, credit for each part learns more than a larger group does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.denoising import Schedule
from eval.stats import mean_interval
from selfrefine.diffusion.trainer import MaskedCreditTrainer
from selfrefine.stepwise.settings import StepCredit

LENGTH, BUDGET, SEEDS = 32, 7_000, range(5)


def vowels(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    return [sum(letter in "aeiou" for letter in text[:LENGTH]) / LENGTH for text in completions]


def reward_reached(masked: str, directory: Path, seed: int, group: int, credit: StepCredit) -> float:
    """Mean reward of the last three rounds when the budget of tokens, branches counted, is used up."""
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback
    from trl import GRPOConfig

    config = GRPOConfig(
        output_dir=str(directory), max_steps=200, logging_steps=1, report_to=[], bf16=False, use_cpu=True, seed=seed,
        save_strategy="no", gradient_checkpointing=False, per_device_train_batch_size=4 * group, num_generations=group,
        max_completion_length=LENGTH, learning_rate=1e-3, beta=0.0, scale_rewards="none", loss_type="bnpo",
        lr_scheduler_type="constant", temperature=1.0,
    )  # fmt: skip
    torch.manual_seed(seed)
    trainer = MaskedCreditTrainer(
        model=masked, args=config, reward_funcs=[vowels], step_credit=credit, mask_id=2,
        train_dataset=Dataset.from_dict({"prompt": ["ab=", "cd=", "abc=", "d="] * 60}), schedule=Schedule(LENGTH, 4, 2),
        likelihood="one_step", prompt_masking=0.0,
    )  # fmt: skip

    rounds: list[float] = []

    class Enough(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            rounds.extend([logs["rewards/vowels/mean"]] if "loss" in logs else [])
            if trainer.generated_tokens >= BUDGET:
                control.should_training_stop = True

    trainer.add_callback(Enough())
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train()
    return sum(rounds[-3:]) / 3


def test_credit_for_each_part_learns_more_from_the_same_tokens_than_a_larger_group(masked: str, tmp_path: Path) -> None:
    """Branches at three of seven cuts take about as many tokens as a second group would."""
    gained = []
    for seed in SEEDS:
        flat = reward_reached(masked, tmp_path, seed, 8, StepCredit(credit="outcome"))
        parts = reward_reached(masked, tmp_path, seed, 4, StepCredit(credit="segments", cuts=3, branches=1))
        gained.append(parts - flat)
    interval = mean_interval(np.array(gained), range(len(gained)))
    print(f"reward gained, by seed: {gained}; {interval}")
    assert interval.low is not None and interval.low > 0, f"reward gained, by seed: {gained}"
