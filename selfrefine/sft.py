"""Supervised fine-tuning on prompt–completion examples, with TRL's SFTTrainer; loss on the completion alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engines.base import Message
from engines.rendering import Renderer
from engines.settings import INERT

# Set by Trivium itself; a recipe's `trl:` mapping may not touch them.
OWNED_KEYS = frozenset(
    {
        "output_dir",
        "seed",
        "data_seed",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "num_train_epochs",
        "max_steps",
        "completion_only_loss",
        "assistant_only_loss",
        "max_length",
        "bf16",
        "fp16",
        "save_strategy",
        "save_steps",
        "save_total_limit",
        "overwrite_output_dir",
        "remove_unused_columns",
        "report_to",
        "use_cpu",
        "logging_steps",
    }
)
_VISION = r".*\b(visual|vision_tower|vision_model)\b.*"
_COMPLETE = "complete"
_LOGGED = ("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "epoch")
_LAST = 10


class LoraSettings(BaseModel):
    """Low-rank adapters on the language model's linear layers; the vision encoder stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str = "all-linear"


class SftSettings(BaseModel):
    """How a training stage trains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(1.0, gt=0)
    steps: int | None = Field(None, ge=1, description="optimiser steps; overrides epochs")
    batch_size: int = Field(64, ge=1, description="examples in one optimiser step")
    accumulate: int = Field(1, ge=1, description="forward passes that one step is split into")
    learning_rate: float = Field(2e-5, gt=0)
    freeze_vision: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the forward pass; auto: bfloat16 on a GPU that computes in it, float32 elsewhere"
    )
    lora: LoraSettings | None = None
    save_every: int = Field(
        500, ge=1, description="steps between the points from which a stopped stage resumes", json_schema_extra=INERT
    )
    trl: Mapping[str, Any] = Field({}, description="further options of TRL's SFTConfig")

    @model_validator(mode="after")
    def _whole_passes(self) -> SftSettings:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} cannot be split into {self.accumulate} equal passes")
        return self


class TrainingStopped(Exception):
    """`should_stop` said so; the training is saved and a later call goes on from there."""


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
) -> dict[str, float | int]:
    """Trains `checkpoint` on `examples` and writes the result to `directory`, whole only when the call has returned.

    `dtype`: of the weights while they are trained; below float32 small updates are rounded away, except in adapters,
    which stay in float32.

    With `settings.lora` the result is a PEFT adapter directory; an adapter given as `checkpoint` is trained further.
    A stopped call resumes from its last saved point in `saves` when called again with the same arguments, and ends
    with the same weights; the caller removes `saves` once the result is safe. `should_stop` is asked after every step;
    a stop saves first and raises `TrainingStopped`. The `loss` returned is the mean over the last ten steps.
    """
    import torch
    from trl import SFTConfig

    from engines.checkpoint import load_model, load_processor

    if not examples:
        raise ValueError("there is nothing to train on: no examples")
    processor = load_processor(checkpoint, trust_remote_code=trust_remote_code)
    resume = _last_save(saves)
    model = load_model(str(resume or checkpoint), dtype=dtype, trust_remote_code=trust_remote_code, merge=False)
    _set_trainable(model, settings)
    # On CPUs, even those that multiply bfloat16 in hardware, small models train slower in it (docs/performance.md).
    gpu = torch.cuda.is_available()
    bf16 = settings.precision == "bfloat16" or (settings.precision == "auto" and gpu and torch.cuda.is_bf16_supported())
    config = SFTConfig(
        output_dir=str(saves),
        seed=seed,
        data_seed=seed,
        per_device_train_batch_size=settings.batch_size // settings.accumulate,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        max_steps=settings.steps or -1,
        completion_only_loss=True,
        remove_unused_columns=False,  # rows are made from a number alone
        max_length=None,  # a cut could fall inside an image's tokens
        bf16=bf16,
        use_cpu=not gpu,
        logging_steps=1,  # means over several steps would depend on where a resumed training began
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=2,  # the older goes only once the newer is whole
        report_to=[],
        **({"lr_scheduler_type": "cosine", "warmup_steps": 0.03, "gradient_checkpointing": False} | dict(settings.trl)),
    )
    config._n_gpu = min(config.n_gpu, 1)  # Trainer would put a batch on each device that it sees.
    trainer = _trainer(model, config, examples, processor, settings, on_log, should_stop)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if trainer.state.global_step < trainer.state.max_steps:
        raise TrainingStopped(f"step {trainer.state.global_step} of {trainer.state.max_steps}")
    # Trainer puts the tokenizer's end token before those it finds, at each start: once more at each resume.
    ends = model.generation_config.eos_token_id
    if isinstance(ends, list):
        model.generation_config.eos_token_id = list(dict.fromkeys(ends))
    trainer.save_model(str(directory))
    processor.save_pretrained(str(directory))
    # No part of a checkpoint: a pickle of the arguments, which holds paths.
    (directory / "training_args.bin").unlink(missing_ok=True)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row][-_LAST:]
    return {"steps": trainer.state.global_step, "examples": len(examples), "loss": sum(losses) / len(losses)}


def _set_trainable(model: Any, settings: SftSettings) -> None:
    import re

    if settings.freeze_vision:
        for name, parameter in model.named_parameters():
            # The projector between the two is trained, as in the paper (section 4.1).
            if re.fullmatch(_VISION, name) and ".merger." not in name:
                parameter.requires_grad_(False)


def _trainer(
    model: Any,
    config: Any,
    examples: Sequence[Example],
    processor: Any,
    settings: SftSettings,
    on_log: Callable[[Mapping[str, Any]], None],
    should_stop: Callable[[], bool],
) -> Any:
    from peft import LoraConfig, PeftModel
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback
    from trl import SFTTrainer

    class _Watch(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:  # The summary at the end speaks of this call alone, which may have resumed.
                kept = {key: logs[key] for key in _LOGGED if key in logs}
                on_log({"step": state.global_step, "steps": state.max_steps, **kept})

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= state.max_steps:
                control.should_save = False  # Nothing is left to resume; from such a save Trainer takes a step more.
            elif should_stop():
                control.should_save = control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # Written last: a save without it was cut short and is not resumed from.
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _COMPLETE).touch()

    class _Trainer(SFTTrainer):  # type: ignore[misc]
        def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            # The weights are those of the save already. Trainer would look for them under the names in memory, which
            # for vision-language models are not those in the file, and go on without them.
            pass

    lora = None
    if settings.lora and not isinstance(model, PeftModel):
        lora = LoraConfig(
            r=settings.lora.r,
            lora_alpha=settings.lora.alpha,
            lora_dropout=settings.lora.dropout,
            target_modules=settings.lora.target_modules,
            exclude_modules=_VISION,
            task_type="CAUSAL_LM",
        )
    trainer = _Trainer(
        model=model,
        args=config,
        train_dataset=_dataset(examples, Renderer(processor, model.config)),
        processing_class=processor,
        peft_config=lora,
        callbacks=[_Watch()],
    )
    # Vision-language classes say that their forward takes no token count, so Trainer would give none and a step of
    # several passes be a mean of means. TRL computes the loss itself, from the count of the whole step.
    trainer.model_accepts_loss_kwargs = True
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer


def _dataset(examples: Sequence[Example], renderer: Renderer) -> Any:
    """The prompts and completions that the engines would put and expect, as rows that TRL only has to collate.

    With images a row is text and an opened image, made when its batch is; without any it is tokens.
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
        return Dataset.from_dict({"number": range(len(examples)), "images": [[]] * len(examples)}).with_transform(
            rendered
        )
    prompts = [renderer.prompt_ids(example.messages, False) for example in examples]
    targets = [renderer.target_ids(example.messages, example.completion, False) for example in examples]
    return Dataset.from_dict(
        {
            "input_ids": [[*prompt, *target] for prompt, target in zip(prompts, targets, strict=True)],
            "completion_mask": [[0] * len(p) + [1] * len(t) for p, t in zip(prompts, targets, strict=True)],
        }
    )


def _last_save(saves: Path) -> Path | None:
    whole = [path.parent for path in saves.glob(f"checkpoint-*/{_COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
