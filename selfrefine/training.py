"""What every training with a trainer of TRL's shares: settings, saves that are whole, a log of each step, a stop."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engines.base import EngineError
from engines.settings import INERT
from selfrefine import zero
from selfrefine.instead import instead
from selfrefine.sharding import Sharded
from selfrefine.tracking import Tracking, track

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
        "bf16",
        "fp16",
        "save_strategy",
        "save_steps",
        "save_total_limit",
        "overwrite_output_dir",
        "remove_unused_columns",
        "report_to",
        "use_cpu",
        "fsdp",
        "fsdp_config",
        "deepspeed",
        "logging_steps",
        "ddp_timeout",
    }
)
_VISION = r".*\b(visual|vision_tower|vision_model)\b.*"
COMPLETE = "complete"

TIMEOUT = "TRIVIUM_TIMEOUT"
"""Says how many seconds each of several processes waits for the others."""

Precision = Literal["auto", "float32", "bfloat16"]
EVERY_LOSS: Mapping[str, Any] = {"logging_steps": 1, "logging_nan_inf_filter": False}
"""Arguments of Trainer: means over several steps would depend on where a resumed training began, and it would log 0
where a loss is no number."""
IGNORED = -100
"""The label of a position that no loss judges: transformers' own."""


class LoraSettings(BaseModel):
    """Low-rank adapters on the language model's linear layers; the vision encoder stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str = "all-linear"

    def config(self, model: Any) -> Any:
        """PEFT's configuration for `model`, whose vision part, if it has one, is left as it is."""
        from peft import LoraConfig

        sees = any(re.fullmatch(_VISION, name) for name, _ in model.named_modules())
        return LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.target_modules,
            exclude_modules=_VISION if sees else None,
            task_type="CAUSAL_LM",
        )


class OptimiserSettings(BaseModel):
    """What is trained, and in which steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accumulate: int = Field(1, ge=1, description="forward passes that one step is split into")
    learning_rate: float = Field(2e-5, gt=0)
    freeze_vision: bool = False
    precision: Precision = Field(
        "auto", description="of the forward pass; auto: bfloat16 on a GPU that computes in it, float32 elsewhere"
    )
    lora: LoraSettings | None = None
    save_every: int = Field(
        500, ge=1, description="steps between the points from which a stopped stage resumes", json_schema_extra=INERT
    )
    trl: Mapping[str, Any] = Field({}, description="further options of TRL's config")

    def set_trainable(self, model: Any) -> None:
        """Freezes what is not to be trained."""
        if self.freeze_vision:
            for name, parameter in model.named_parameters():
                # The projector between the two is trained, as in the paper (arXiv 2510.10487, section 4.1).
                if re.fullmatch(_VISION, name) and ".merger." not in name:
                    parameter.requires_grad_(False)

    def config(self, saves: Path, seed: int) -> dict[str, Any]:
        """Arguments of TRL's config classes that all trainings have."""
        return {
            "output_dir": str(saves),
            "seed": seed,
            "data_seed": seed,
            "gradient_accumulation_steps": self.accumulate,
            "learning_rate": self.learning_rate,
            "remove_unused_columns": False,
            **of_machine(self.precision),
            **EVERY_LOSS,
            "save_strategy": "steps",
            "save_steps": self.save_every,
            "save_total_limit": 2,  # the older goes only once the newer is whole
            "report_to": [],
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.03,
            "gradient_checkpointing": False,
            **self.trl,
        }


def of_machine(precision: Precision) -> dict[str, Any]:
    """Arguments of Trainer that follow from where it runs, for a precision of the forward pass."""
    import torch

    gpu = torch.cuda.is_available()
    # On CPUs, even those that multiply bfloat16 in hardware, small models train slower in it (docs/performance.md).
    fast = precision == "auto" and gpu and torch.cuda.is_bf16_supported()
    bf16 = precision == "bfloat16" or fast
    # Left there by `accelerate launch`, or by a user: Trainer takes it where an argument asks for no other precision.
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    found = zero.arguments(bf16, gpu) if zero.is_asked() else {"bf16": bf16, "use_cpu": not gpu}
    if TIMEOUT in os.environ:
        found["ddp_timeout"] = int(os.environ[TIMEOUT])
        if found["use_cpu"]:
            _meet(found["ddp_timeout"])
    return found


def _meet(seconds: int) -> None:
    """Lets the processes meet here, as Trainer where CPUs are asked for does not say how long they are to wait."""
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=timedelta(seconds=seconds))


def begin(
    checkpoint: str, saves: Path, settings: OptimiserSettings, dtype: str, trust_remote_code: bool
) -> tuple[Any, Any, Path | None, Any]:
    """(processor, model, save that is resumed from, configuration of a new adapter).

    The model is that of the save where there is one; an adapter or a loop that it has already is trained further.

    Raises `EngineError` where a looped checkpoint is to get an adapter: its loop is one.
    """
    from peft import PeftModel

    from engines.checkpoint import load_model, load_processor
    from engines.looped.config import is_looped

    if settings.lora and is_looped(Path(checkpoint)):
        raise EngineError(f"{checkpoint}: a looped checkpoint is trained further as it is; leave out lora")

    processor = load_processor(checkpoint, trust_remote_code=trust_remote_code)
    resume = last_save(saves)
    model = load_model(str(resume or checkpoint), dtype=dtype, trust_remote_code=trust_remote_code, merge=False)
    if resume and not isinstance(model, PeftModel):
        model.config.name_or_path = checkpoint  # from which TRL loads a reference model: not from the save
    settings.set_trainable(model)
    adapter = settings.lora.config(model) if settings.lora and not isinstance(model, PeftModel) else None
    return processor, model, resume, adapter


def _number_cpus() -> None:
    """Lets torch load onto `cpu:1`, as onto `cuda:1`: where Trainer resumes the second of several processes."""
    from torch.serialization import register_package

    register_package(15, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None)


def processes() -> int:
    """How many processes train together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this process is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def on_one_device(config: Any) -> Any:
    """The same config: Trainer would put a batch on each device that it sees."""
    config._n_gpu = min(config.n_gpu, 1)
    return config


class TrainingStopped(Exception):
    """`should_stop` said so; the training is saved and a later call goes on from there."""


class LoadedAlready(Sharded, zero.Zero):
    """Beside a trainer class: keeps Trainer from loading a save's weights.

    They are in the model already. Trainer would look for them under the names in memory, which for vision-language
    models are not those in the file, and go on without them.
    """

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        pass

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimiser = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        # DeepSpeed drops those without weights, and a save has to have as many whoever made it.
        optimiser.param_groups[:] = [group for group in optimiser.param_groups if group["params"]]
        return optimiser


def last_save(saves: Path) -> Path | None:
    """The newest save that was written whole."""
    whole = [path.parent for path in saves.glob(f"checkpoint-*/{COMPLETE}")]
    return max(whole, key=step_of, default=None)


def step_of(save: Path | None) -> int:
    """The optimiser step after which a save was written; 0 where there is none."""
    return int(save.name.rpartition("-")[2]) if save else 0


def whole_epochs(save: Path | None) -> int:
    """How many epochs were over when a save was written."""
    from transformers import TrainerState

    return int(TrainerState.load_from_json(str(save / "trainer_state.json")).epoch + 1e-6) if save else 0


def run(
    trainer: Any,
    resume: Path | None,
    processor: Any,
    directory: Path,
    on_log: Callable[[Mapping[str, Any]], None],
    should_stop: Callable[[], bool],
    logged: Callable[[str], bool],
    enough: Callable[[], bool] = lambda: False,
    tracking: Tracking | None = None,
    round_steps: int = 1,
) -> None:
    """Trains to the end and writes the checkpoint to `directory`. `on_log` gets the numbers whose names are `logged`.

    `processor` is written beside the weights; None for a model that has none.

    The end is the last step, or the one after which `enough` says so. It stops before between rounds of `round_steps`
    alone, as long as something that no save holds is needed. Of several processes the first one logs and writes; the
    others return when the checkpoint is there.

    Raises:
        TrainingStopped: `should_stop`, asked after every step, was true; what is done is saved.
        EngineError: the loss is no number any more.
    """
    from transformers import PrinterCallback, ProgressCallback

    if tracking and is_first():
        track(trainer, tracking, step_of(resume))
    trainer.add_callback(_watch(on_log, should_stop, logged, enough, round_steps))
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    if resume and processes() > 1:
        _number_cpus()
    with _scored_alone():
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if trainer.state.global_step < trainer.state.max_steps and not enough():
        raise TrainingStopped(f"step {trainer.state.global_step} of {trainer.state.max_steps}")
    # Trainer puts the tokenizer's end token before those it finds, at each start: once more at each resume.
    generation = getattr(trainer.model, "generation_config", None)
    if generation is not None and isinstance(generation.eos_token_id, list):
        generation.eos_token_id = list(dict.fromkeys(generation.eos_token_id))
    trainer.save_model(str(directory))
    if is_first():
        if processor is not None:
            processor.save_pretrained(str(directory))
        # No part of a checkpoint: a pickle of the arguments, which holds paths.
        (directory / "training_args.bin").unlink(missing_ok=True)
    trainer.accelerator.wait_for_everyone()


def _scored_alone() -> AbstractContextManager[None]:
    """On a CPU, TRL's fused head has logits of the tokens that have a loss alone, as it has on a GPU.

    It takes those of the prompts too wherever Triton does not run, for the sake of devices that compile for one number
    of rows, and prompts are often the larger part of them. Nothing is done for a trainer that is not TRL's.
    """
    utils = sys.modules.get("trl.trainer.utils")
    if utils is None:
        return nullcontext()
    return instead(utils, "_use_triton", lambda device: device.type in ("cpu", "cuda", "xpu"))


def _watch(
    on_log: Callable[[Mapping[str, Any]], None],
    should_stop: Callable[[], bool],
    logged: Callable[[str], bool],
    enough: Callable[[], bool],
    round_steps: int,
) -> Any:
    from accelerate.utils import gather_object
    from transformers import TrainerCallback

    class _Watch(TrainerCallback):  # type: ignore[misc]
        tokens = 0
        """Those of the steps before, as far as this process, or the state it resumes from, counts them."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.tokens = state.num_input_tokens_seen

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            # The summary at the end speaks of this call alone, which may have resumed.
            if logs and not math.isfinite(logs.get("loss", 0.0)):  # the same in all processes
                raise EngineError(
                    f"step {state.global_step}: the loss is {logs['loss']}, the training has diverged; give a lower "
                    "learning_rate or a longer warm-up"
                )
            if logs and "loss" in logs and is_first():
                kept = {key: value for key, value in logs.items() if logged(key)}
                if "num_tokens" in logs:  # TRL's sum over all steps, which begins anew where a training resumes
                    kept["tokens"] = int(logs["num_tokens"]) - self.tokens
                    self.tokens = int(logs["num_tokens"])
                on_log({"step": state.global_step, "steps": state.max_steps, **kept})

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= state.max_steps or enough():
                control.should_save = False  # Nothing is left to resume; from such a save Trainer takes a step more.
                control.should_training_stop = True
                return
            stop = should_stop() and state.global_step % round_steps == 0
            if any(gather_object([stop])):  # All stop at the same step, or those that go on would hang.
                control.should_save = control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # Written last, when every process has written its part: a save without it is not resumed from.
            args.distributed_state.wait_for_everyone()
            if is_first():
                (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()

    return _Watch()
