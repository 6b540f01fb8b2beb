"""Training of a loop on examples: from a checkpoint, tuned or reinforced or neither, to a looped checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.base import EngineError
from engines.looped.config import LoopConfig
from engines.rendering import Renderer
from selfrefine.latent.adapter.settings import ReflectSettings
from selfrefine.sft import OWNED_KEYS as SFT_KEYS
from selfrefine.sft import Example, dataset, numbers_of, trainer_of
from selfrefine.tracking import Tracking
from selfrefine.training import last_save, run

OWNED_KEYS = SFT_KEYS | {"loss_type", "router_aux_loss_coef"}
_LOGGED = ("loss", "grad_norm", "learning_rate", "mean_token_accuracy", "epoch", "gate_", "growth_")


def reflect(
    examples: Sequence[Example],
    checkpoint: str,
    directory: Path,
    saves: Path,
    settings: ReflectSettings,
    seed: int,
    *,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    on_log: Callable[[Mapping[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
    tracking: Tracking | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> dict[str, float | int]:
    """Trains a loop on `checkpoint`, whose weights stay as they are, and writes it to `directory`.

    The result is the directory of a looped checkpoint, whose base is `checkpoint`; one that is given as `checkpoint` is
    trained further. Everything else is as in `selfrefine.sft.fine_tune`, resuming included. `warn` gets a line where
    the loop's states grow large.

    Raises:
        EngineError: the model cannot be looped, or has a loop of another form than the settings ask for.
    """
    from transformers import set_seed

    from engines.checkpoint import load_model, load_processor
    from engines.looped.files import describe
    from engines.looped.loop import attach, loop_of
    from engines.masked import refuse_masked
    from selfrefine.latent.adapter.trainer import AlignedSFTTrainer

    if not examples:
        raise ValueError("there is nothing to train on: no examples")
    processor = load_processor(checkpoint, trust_remote_code=trust_remote_code)
    resume = last_save(saves)
    model = load_model(str(resume or checkpoint), dtype=dtype, trust_remote_code=trust_remote_code)
    refuse_masked(model.config, checkpoint)
    set_seed(seed)  # LoRA weights are drawn
    if (loop := loop_of(model)) is None:
        attach(model, describe(model, checkpoint, settings.loop, settings.lora))
    else:
        _check_same(loop.config, describe(model, checkpoint, settings.loop, settings.lora), checkpoint)
    trainer = trainer_of(
        AlignedSFTTrainer,
        model,
        processor,
        dataset(examples, Renderer(processor, model.config)),
        saves,
        settings,
        seed,
        gate_rate=settings.gate_rate,
        curriculum=settings.curriculum,
        warn=warn,
    )

    def logged(name: str) -> bool:
        return name.startswith(_LOGGED)

    run(trainer, resume, processor, directory, on_log, should_stop, logged, tracking=tracking)
    return numbers_of(trainer, examples)


def _check_same(there: LoopConfig, asked: LoopConfig, checkpoint: str) -> None:
    """Raises `EngineError` where a loop that is to be trained further is not the one that is asked for."""
    ours, theirs = ({**each.loop.model_dump(exclude={"gate_init"}), "lora": each.lora} for each in (asked, there))
    for name, value in theirs.items():
        if ours[name] != value:
            raise EngineError(
                f"{name}: the loop of {checkpoint} was made with {value}, not {ours[name]}; give the same"
            )
