"""What step credit adds to a training step: with weight 0 against TRL's own trainer, and the share of the branches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from engines.denoising import Schedule
from selfrefine.build import BuildSpec, build_model
from selfrefine.diffusion.trainer import MaskedCreditTrainer
from selfrefine.stepwise.grpo import GRPOTrainer
from selfrefine.stepwise.settings import StepCredit
from selfrefine.stepwise.trainer import StepCreditTrainer

PROMPTS = ["what is two and two?", "what is five less three?", "which one is red?", "where is it?"]
GROUP, GROUPS, TOKENS = 8, 4, 64
STEPS, TIMES = 3, 3


def even(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """About half of all completions: no group is decided, so that every row is worth a branch."""
    return [float(len(text) % 2 == 0) for text in completions]


def seldom(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """About one completion in eight, as early in a training: one group in three is all wrong."""
    return [float(len(text) % 8 == 0) for text in completions]


def overhead(directory: Path) -> float:
    """How many times as long a step takes with weight 0 as in TRL's trainer: the median of pairs, in turns."""
    none = StepCredit(weight=0, group_filter="none")
    ratios = []
    for _ in range(TIMES):
        plain = _steps(directory, even, GRPOTrainer)
        ours = _steps(directory, even, StepCreditTrainer, step_credit=none)
        ratios.append(median(row["seconds"] for row in ours) / median(row["seconds"] for row in plain))
    return median(ratios)


def branch_share(directory: Path, settings: StepCredit, reward: Callable[..., Any], masked: bool = False) -> float:
    """Seconds of branches over the seconds of the rest of a step."""
    if masked:
        schedule = Schedule(TOKENS, 16, 8)
        further = {
            "schedule": schedule,
            "mask_id": _mask_id(directory),
            "likelihood": "one_step",
            "prompt_masking": 0.0,
        }
        rows = _steps(directory, reward, MaskedCreditTrainer, masked=True, step_credit=settings, **further)
    else:
        rows = _steps(directory, reward, StepCreditTrainer, step_credit=settings)
    branches = sum(row.get("step_aware/branch_seconds", 0) for row in rows)
    return branches / (sum(row["seconds"] for row in rows) - branches)


def _mask_id(directory: Path) -> int:
    from transformers import AutoTokenizer

    return int(AutoTokenizer.from_pretrained(_model(directory, masked=True)).mask_token_id)


def _model(directory: Path, masked: bool) -> str:
    path = directory / ("masked" if masked else "causal")
    if not path.exists():
        sizes = {"hidden_size": 128, "layers": 2, "heads": 4, "kv_heads": 4, "vocab_size": 1000}
        spec = BuildSpec(architecture="masked_llama" if masked else "llama", **sizes)
        build_model(spec, PROMPTS, path, seed=0)
    return str(path)


def _steps(
    directory: Path, reward: Callable[..., Any], trainer_class: Any, masked: bool = False, **further: Any
) -> list[dict[str, float]]:
    """What is logged of each step but the first, and its `seconds`, optimiser included."""
    from datasets import Dataset
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback
    from trl import GRPOConfig

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seconds.append(time.perf_counter() - self.start)

    seconds: list[float] = []
    trainer = trainer_class(
        model=_model(directory, masked),
        reward_funcs=[reward],
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 4}),
        args=GRPOConfig(
            output_dir=str(directory / "trained"), per_device_train_batch_size=GROUP * GROUPS, num_generations=GROUP,
            max_completion_length=TOKENS, max_steps=STEPS + 1, learning_rate=1e-6, logging_steps=1, report_to=[],
            bf16=False, use_cpu=True, save_strategy="no", gradient_checkpointing=False, seed=1, beta=0.0,
        ),
        **further,
    )  # fmt: skip
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(Clock)
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    return [row | {"seconds": each} for row, each in zip(rows, seconds, strict=True)][1:]
