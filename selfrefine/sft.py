"""Supervised fine-tuning on prompt–completion examples, with TRL's SFTTrainer; loss on the completion alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from engines.base import EngineError, Message
from engines.rendering import Renderer
from selfrefine.tracking import Tracking
from selfrefine.training import OWNED_KEYS as COMMON_KEYS
from selfrefine.training import LoadedAlready, OptimiserSettings, begin, on_one_device, processes, run

OWNED_KEYS = COMMON_KEYS | {"completion_only_loss", "assistant_only_loss", "max_length"}
_LOGGED = frozenset({"loss", "grad_norm", "learning_rate", "mean_token_accuracy", "epoch"})
_LAST = 10


class EpochSettings(OptimiserSettings):
    """How often, and in what batches, examples are gone through."""

    epochs: float = Field(1.0, gt=0)
    steps: int | None = Field(None, ge=1, description="optimiser steps; overrides epochs")
    batch_size: int = Field(64, ge=1, description="examples in one optimiser step")

    @model_validator(mode="after")
    def _whole_passes(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be split into {self.accumulate} equal passes")
        return self

    def rows_of_a_process(self, processes: int) -> int:
        """Examples in one pass of each process. Raises ValueError where they cannot be shared out equally."""
        rows = self.batch_size // self.accumulate
        if rows % processes:
            raise ValueError(
                f"batch_size {self.batch_size} / accumulate {self.accumulate} = {rows} examples of a pass cannot be "
                f"shared out to {processes} processes; change one of them"
            )
        return rows // processes


class SftSettings(EpochSettings):
    """How a training stage trains."""

    canvas: int | None = Field(
        None,
        ge=1,
        description="masked-diffusion models: tokens that answers are filled up to with end tokens, learnt as well; "
        "the longest answer's unless given",
    )


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: `messages` end with a user turn, `completion` is the target. `image` is a path."""

    messages: Sequence[Message]
    completion: str
    image: str | None


def fine_tune(
    examples: Sequence[Example],
    checkpoint: str,
    directory: Path,
    saves: Path,
    settings: SftSettings,
    seed: int,
    *,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    on_log: Callable[[Mapping[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
    tracking: Tracking | None = None,
) -> dict[str, float | int]:
    """Trains `checkpoint` on `examples` and writes the result to `directory`, whole only when the call has returned.

    `dtype`: of the weights while they are trained; below float32 small updates are rounded away, except in adapters,
    which stay in float32.

    With `settings.lora` the result is a PEFT adapter directory; an adapter given as `checkpoint` is trained further.
    A stopped call resumes from its last saved point in `saves` when called again with the same arguments, and ends
    with the same weights; the caller removes `saves` once the result is safe. `should_stop` is asked after every step;
    a stop saves first and raises `TrainingStopped`. The `loss` returned is the mean over the last ten steps.
    """
    from trl import SFTTrainer

    from engines.masked import check_reads_ahead, is_masked, mask_token_of

    if not examples:
        raise ValueError("there is nothing to train on: no examples")
    processor, model, resume, adapter = begin(checkpoint, saves, settings, dtype, trust_remote_code)
    renderer = Renderer(processor, model.config)
    masked = is_masked(model.config)
    kind, further = SFTTrainer, {}
    if masked:
        from selfrefine.diffusion.sft import MaskedSFTTrainer

        check_reads_ahead(model, checkpoint)
        kind, further = MaskedSFTTrainer, {"mask_id": mask_token_of(model.config, renderer.tokenizer, checkpoint)}
    trainer = trainer_of(
        kind,
        model,
        processor,
        dataset(examples, renderer, settings.canvas, filled=masked),
        saves,
        settings,
        seed,
        peft_config=adapter,
        **further,
    )
    # The loss of a masked-diffusion model is a mean over rows, of which all passes have the same number.
    trainer.model_accepts_loss_kwargs = not masked
    run(trainer, resume, processor, directory, on_log, should_stop, _LOGGED.__contains__, tracking=tracking)
    return numbers_of(trainer, examples)


def trainer_of(
    kind: type,
    model: Any,
    processor: Any,
    rows: Any,
    saves: Path,
    settings: EpochSettings,
    seed: int,
    /,
    **further: Any,
) -> Any:
    """A trainer of a class derived from TRL's SFTTrainer, for rows as `dataset` makes them; `further` is for `kind`."""
    from trl import SFTConfig

    config = SFTConfig(
        per_device_train_batch_size=settings.rows_of_a_process(processes()),
        num_train_epochs=settings.epochs,
        max_steps=settings.steps or -1,
        completion_only_loss=True,
        max_length=None,  # a cut could fall inside an image's tokens
        **settings.config(saves, seed),
    )

    class _Trainer(LoadedAlready, kind):  # type: ignore[misc]
        pass

    trainer = _Trainer(
        model=model, args=on_one_device(config), train_dataset=rows, processing_class=processor, **further
    )
    # Vision-language classes say that their forward takes no token count, so Trainer would give none and a step of
    # several passes be a mean of means. TRL computes the loss itself, from the count of the whole step.
    trainer.model_accepts_loss_kwargs = True
    return trainer


def numbers_of(trainer: Any, examples: Sequence[Example]) -> dict[str, float | int]:
    """Steps, examples, and the mean loss over the last ten steps, of a training that is over."""
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row][-_LAST:]
    return {"steps": trainer.state.global_step, "examples": len(examples), "loss": sum(losses) / len(losses)}


def dataset(examples: Sequence[Example], renderer: Renderer, canvas: int | None = None, filled: bool = False) -> Any:
    """The prompts and completions that the engines would put and expect, as rows that TRL only has to collate.

    With images a row is text and an opened image, made when its batch is; without any it is tokens. `filled`: every
    answer is filled up to `canvas` tokens with end tokens.

    Raises:
        EngineError: an answer is longer than the canvas.
    """
    from datasets import Dataset

    from engines.rendering import open_image

    def rendered(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        chosen = [examples[number] for number in batch["number"]]
        return {
            "prompt": [renderer.prompt_text(e.messages, e.image is not None) for e in chosen],
            "completion": [renderer.target_text(e.messages, e.completion, e.image is not None) for e in chosen],
            "images": [[open_image(e.image)] if e.image else [] for e in chosen],
        }

    if any(example.image for example in examples):
        if filled:
            raise EngineError("this masked-diffusion model reads no images, and the data have some")
        return Dataset.from_dict({"number": range(len(examples)), "images": [[]] * len(examples)}).with_transform(
            rendered
        )
    prompts = [renderer.prompt_ids(example.messages, False) for example in examples]
    targets = [renderer.target_ids(example.messages, example.completion, False) for example in examples]
    if filled:
        longest = max(len(target) for target in targets)
        if canvas is not None and longest > canvas:
            raise EngineError(f"an answer has {longest} tokens, more than canvas {canvas}; give canvas={longest}")
        end = [renderer.tokenizer.eos_token_id]
        targets = [target + end * ((canvas or longest) - len(target)) for target in targets]
    return Dataset.from_dict(
        {
            "input_ids": [[*prompt, *target] for prompt, target in zip(prompts, targets, strict=True)],
            "completion_mask": [[0] * len(p) + [1] * len(t) for p, t in zip(prompts, targets, strict=True)],
        }
    )
