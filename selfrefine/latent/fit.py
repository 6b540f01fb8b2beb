"""Trains a recurrent reasoner from scratch, resumably, and says how well each of its alignments answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from selfrefine.latent.boards import Boards
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.model import LatentReasoner
from selfrefine.latent.precision import bfloat16_products
from selfrefine.latent.settings import RolloutSettings
from selfrefine.tracking import Tracking
from selfrefine.training import EVERY_LOSS, last_save, of_machine, on_one_device, run, step_of

_LOGGED = frozenset(
    (
        "loss", "accuracy", "cell_accuracy", "kept_accuracy", "kept_step", "learning_rate", "segment", "rollouts",
        "boards_seen",
    )
)  # fmt: skip


def train_reasoner(
    boards: Boards,
    config: LatentReasonerConfig,
    directory: Path,
    saves: Path,
    settings: RolloutSettings,
    seed: int,
    *,
    validation: Boards | None = None,
    on_log: Callable[[Mapping[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
    tracking: Tracking | None = None,
) -> dict[str, float | int]:
    """Trains a new reasoner on `boards` and writes it to `directory`.

    A stopped call resumes from its last saved point in `saves` when called again with the same arguments, and ends with
    the same weights. It stops, and saves, at the end of a rollout. `validation` is what `settings.judge_every` looks
    at, and by which `settings.keep` chooses.

    Raises:
        TrainingStopped: `should_stop` was true.
        ValueError: `steps` are no whole number of rollouts; boards that the model cannot read.
    """
    from transformers import TrainingArguments

    from selfrefine.latent.trainer import RolloutTrainer

    length = settings.rollout_steps(config.segments)
    settings.check_steps(config.segments)
    size, highest = boards.inputs.shape[1], max(boards.inputs.max(), boards.labels.max())
    if size != config.seq_len or highest >= config.vocab_size:
        raise ValueError(
            f"boards of {size} cells with tokens up to {highest}; the model reads {config.seq_len} cells with tokens "
            f"up to {config.vocab_size - 1}"
        )
    torch.manual_seed(seed)
    resume = last_save(saves)
    model = LatentReasoner.from_pretrained(resume, dtype=torch.float32) if resume else LatentReasoner(config)
    if settings.compile:
        model.recurrence.compile()
    products = settings.precision == "bfloat16" and not torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(saves),
        seed=seed,
        max_steps=settings.steps,
        # Rows are drawn by the trainer itself; Trainer only has to think that there are some.
        per_device_train_batch_size=settings.batch_size,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup_steps,
        max_grad_norm=0.0,
        **of_machine("float32" if products else settings.precision),
        **EVERY_LOSS,
        gradient_checkpointing=settings.gradient_checkpointing,
        # Segments leave weights unused, for which several processes would wait. Trainer looks for such weights unless
        # it checkpoints; these checkpoints, which do not re-enter, bear that.
        ddp_find_unused_parameters=True,
        save_strategy="steps",
        save_steps=settings.save_every * length,
        save_total_limit=2,
        report_to=[],
        remove_unused_columns=False,
        ignore_data_skip=True,  # The boards begin at the step of the save by themselves.
    )
    trainer = RolloutTrainer(
        model=model,
        args=on_one_device(arguments),
        boards=boards,
        validation=validation,
        settings=settings,
        first=step_of(resume),
    )
    if resume:
        trainer.resume_average(resume)

    with bfloat16_products() if products else nullcontext():
        run(
            trainer, resume, None, directory, on_log, should_stop, _LOGGED.__contains__, tracking=tracking,
            round_steps=length,
        )  # fmt: skip
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row][-10 * length :]
    return {
        "steps": trainer.state.global_step,
        "rollouts": trainer.state.global_step // length,
        "parameters": model.num_parameters(),
        "loss": sum(losses) / len(losses),
        **({} if trainer.kept_step is None else {"kept step": trainer.kept_step}),
    }
