"""Training of a recurrent reasoner: one drawn batch gives a rollout, one optimiser step at each of its alignments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from transformers import Trainer, TrainerCallback

from selfrefine.latent.best import Best
from selfrefine.latent.boards import Boards
from selfrefine.latent.curves import LAST_FOLDER, RAW_FOLDER, accuracy
from selfrefine.latent.model import LatentReasoner
from selfrefine.latent.settings import RolloutSettings
from selfrefine.training import LoadedAlready

AVERAGE_FILE = "average.pt"
"""Beside the weights of a save: their exponential moving average, and how many rollouts are in it."""


class RolloutTrainer(LoadedAlready, Trainer):  # type: ignore[misc]
    """Trainer whose steps are segments: the estimate is carried from one to the next, on the same batch.

    A rollout is N steps (with `alignment: step`) or one. Batches depend on the seed and the number of the rollout
    alone, so that a training that resumes at the end of a rollout, where alone it may be saved, draws the same ones.

    Args:
        boards: what is trained on.
        validation: what `settings.judge_every` looks at.
        first: the optimiser step that the training begins with, 0 or where a save left off.
    """

    def __init__(
        self,
        *args: Any,
        boards: Boards,
        settings: RolloutSettings,
        validation: Boards | None = None,
        first: int = 0,
        **kwargs: Any,
    ) -> None:
        self._boards, self._settings, self._validation, self._first = boards, settings, validation, first
        super().__init__(*args, train_dataset=torch.utils.data.Dataset(), **kwargs)
        # The loss is a mean over rows, of which every process has the same number.
        self.model_accepts_loss_kwargs = False
        self._carried: tuple[dict[str, Tensor], Any] | None = None
        self.average = None if settings.ema is None else average_of(self.model, settings)
        self._best = Best(Path(self.args.output_dir)) if settings.keep == "best" else None
        self.add_callback(_RolloutEnd(self))

    @property
    def rollout_steps(self) -> int:
        """Optimiser steps in one rollout."""
        return self._settings.rollout_steps(self.accelerator.unwrap_model(self.model).config.segments)

    def get_train_dataloader(self) -> Any:
        # Not split among processes by accelerate: each draws its own rows.
        rollouts = _Rollouts(self._boards, self._settings, self.args, self.rollout_steps, self._first)
        return torch.utils.data.DataLoader(rollouts, batch_size=None, sampler=range(len(rollouts)))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        self.optimizer: torch.optim.Optimizer | None
        if self.optimizer is None:
            self.optimizer = self._settings.optimiser_for(self.accelerator.unwrap_model(self.model))
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        number = int(inputs.pop("segment"))
        if number == 0:
            self._carried = (inputs, None)
        assert self._carried is not None, "a training may only begin where a rollout does"
        batch, state = self._carried
        total = torch.zeros((), device=self.args.device)
        for output in self._alignments(model, batch, state, number):
            self.accelerator.backward(output.loss)
            total += output.loss.detach()
            state = output.state
        self._carried = (batch, state)
        if self._settings.zero_gradients:
            for parameter in model.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return total

    def _alignments(self, model: Any, batch: dict[str, Tensor], state: Any, number: int) -> Iterator[Any]:
        """What each alignment of this optimiser step gives."""
        segments = self.accelerator.unwrap_model(model).config.segments
        with self.accelerator.autocast():
            match self._settings.alignment:
                case "step":
                    yield model(**batch, state=state, first=number, count=1)
                case "sum":
                    for each in range(segments):
                        output = model(**batch, state=state, first=each, count=1)
                        state = output.state
                        yield output
                case "last":
                    if segments > 1:
                        with torch.no_grad():
                            state = model(batch["input_ids"], count=segments - 1).state
                    yield model(**batch, state=state, first=segments - 1, count=1)
                case "whole":
                    # The last loss alone, its gradient through every update: what periodic alignment is there to avoid.
                    before = model(batch["input_ids"], count=segments - 1, cut=False).state if segments > 1 else None
                    yield model(**batch, state=before, first=segments - 1, count=1, cut=False)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            done = self.state.global_step
            rows = self._boards.rows_of(self._settings.batch_size, self.args.world_size)
            logs["segment"] = (done - 1) % self.rollout_steps
            logs["rollouts"] = -(-done // self.rollout_steps)
            logs["boards_seen"] = logs["rollouts"] * rows
            every, last = self._settings.judge_every, self._best is not None and done == self.state.max_steps
            if every and self._validation is not None and (last or done % (every * self.rollout_steps) == 0):
                model = self.accelerator.unwrap_model(self.model)
                logs["accuracy"], logs["cell_accuracy"] = accuracy(model, self._validation)
                if self._best is not None:
                    self._offer(self._best, model, logs["accuracy"], logs["cell_accuracy"])
                    logs["kept_accuracy"], logs["kept_step"] = self._best.accuracy, self._best.step
        super().log(logs, *args, **kwargs)

    def _offer(self, best: Best, model: LatentReasoner, boards: float, cells: float) -> None:
        """Offers the weights of this step, with their shares of right boards and cells, or their average with its."""
        assert self._validation is not None
        if self.average is not None:
            model = cast(LatentReasoner, self.average.module)
            boards, cells = accuracy(model, self._validation)
        best.offer(model, boards, cells, self.state.global_step, self.args.should_save)

    @property
    def kept_step(self) -> int | None:
        """The step of the best look so far, where `settings.keep` is `best`."""
        return None if self._best is None else self._best.step

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if _internal_call or output_dir is None:
            super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            directory, raw = Path(output_dir), self.accelerator.unwrap_model(self.model)
            last: Any = raw if self.average is None else self.average.module
            if self._best is None:
                last.save_pretrained(directory)
            else:
                self._best.copy_to(directory)
                last.save_pretrained(directory / LAST_FOLDER)
            if self.average is not None:
                raw.save_pretrained(directory / RAW_FOLDER)

    def resume_average(self, save: Path) -> None:
        """Takes the average up from a save."""
        if self.average is not None:
            self.average.load_state_dict(torch.load(save / AVERAGE_FILE, map_location="cpu", weights_only=True))


class _Rollouts(torch.utils.data.Dataset[dict[str, Any]]):
    """An item for each optimiser step: the number of the segment, and at the first of a rollout the batch."""

    def __init__(self, boards: Boards, settings: RolloutSettings, args: Any, steps: int, first: int) -> None:
        self._boards, self._settings, self._args, self._steps, self._first = boards, settings, args, steps, first

    def __len__(self) -> int:
        return int(self._args.max_steps)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rollout, segment = divmod(self._first + index, self._steps)
        if segment:
            return {"segment": segment}
        args = self._args
        inputs, labels = self._boards.batch(
            rollout,
            self._settings.batch_size,
            args.seed,
            args.process_index,
            args.world_size,
            self._settings.symmetry_pool,
        )
        return {"segment": 0, "input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}


class _RolloutEnd(TrainerCallback):  # type: ignore[misc]
    """The average takes the weights in once a rollout, and is saved with them."""

    def __init__(self, trainer: RolloutTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self._trainer
        if trainer.average is not None and state.global_step % trainer.rollout_steps == 0:
            trainer.average.update_parameters(trainer.accelerator.unwrap_model(trainer.model))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._trainer.average is not None and args.should_save:
            directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            torch.save(self._trainer.average.state_dict(), directory / AVERAGE_FILE)


def average_of(model: LatentReasoner, settings: RolloutSettings) -> AveragedModel:
    """An exponential moving average that begins with the weights as they are."""

    def move(averaged: Any, current: Any, count: Tensor | int) -> None:
        torch._foreach_lerp_(averaged, current, 1 - settings.ema_decay(int(count) - 1))

    average = AveragedModel(model, multi_avg_fn=move)
    average.update_parameters(model)  # The first call copies.
    return average
