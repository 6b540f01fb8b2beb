"""A loop's directory: `adapter_config.json` and `adapter_model.safetensors`, beside nothing of the base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from engines.base import EngineError
from engines.looped.config import (
    CONFIG_FILE,
    PEFT_TYPE,
    WEIGHTS_FILE,
    LoopConfig,
    LoopSettings,
    default_layers,
    digest_of,
)
from engines.looped.loop import NAME, LatentLoop, attach, loop_of
from engines.looped.lora import LowRank, resolved
from engines.looped.tower import tower_of
from engines.looped.trained_on import TrainedOn
from engines.tensor_file import check_whole


def describe(model: Any, base: str, settings: LoopSettings, lora: LowRank | None = None) -> LoopConfig:
    """The config of a loop on `model`, which is the one that `base` names: a hub name, or a local directory.

    Raises `EngineError` where the model has not the layers that are asked for.
    """
    tower = tower_of(model)
    layers = settings.layers or default_layers(len(tower.layers))
    tower.check_span(range(*layers))
    # Resolved, because a later run may start elsewhere.
    name = str(Path(base).resolve()) if Path(base).exists() else base
    return LoopConfig(
        peft_type=PEFT_TYPE,
        base_model_name_or_path=name,
        base_config_digest=digest_of(model.config),
        trained_on=TrainedOn.of(model, name, tower.text, layers[0]),
        revision=getattr(model.config, "_commit_hash", None),
        loop=settings.model_copy(update={"layers": layers}),
        lora=resolved(lora, tower.layers[layers[0]]) if lora else None,
    )


def save(model: Any, directory: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Writes the loop of a model. `state_dict`: of the whole model, where its weights are not in one place."""
    from safetensors.torch import save_file

    loop = loop_of(model)
    assert loop is not None
    state = model.state_dict() if state_dict is None else state_dict
    directory.mkdir(parents=True, exist_ok=True)
    weights = {short: state[name].detach().cpu().contiguous() for short, name in _names(model).items()}
    save_file(weights, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    loop.config.write(directory)


def load_loop(model: Any, directory: Path, base: str | None = None) -> LatentLoop:
    """Puts the loop of `directory` on a transformers model, in place. `base`: what the model was loaded from.

    Raises:
        EngineError: it was made for another model, or its weights are damaged, missing, or not those that its config
            says.
    """
    from safetensors.torch import load_file

    config = LoopConfig.read(directory)
    if differs := _other_base(config, model):
        there = config.trained_on.name if config.trained_on else config.base_model_name_or_path
        here = base or model.config.name_or_path or type(model).__name__
        raise EngineError(
            f"{directory}: this loop was trained on {there}, and {'what is there now' if here == there else here} is "
            f"another model: {differs}; name the right one as base_model_name_or_path in adapter_config.json"
        )
    if not (directory / WEIGHTS_FILE).is_file():
        raise EngineError(f"{directory}: a loop's config but no {WEIGHTS_FILE}; copy or save the checkpoint again")
    check_whole(directory / WEIGHTS_FILE)
    try:
        loop = attach(model, config)
    except EngineError as error:
        raise EngineError(f"{directory / CONFIG_FILE}: {error}") from None
    names, weights = _names(model), load_file(directory / WEIGHTS_FILE)
    state = model.state_dict()
    wrong = sorted(names.keys() ^ weights.keys())
    wrong += [short for short in weights if not wrong and weights[short].shape != state[names[short]].shape]
    if wrong:
        loop.remove()
        raise EngineError(f"{directory / WEIGHTS_FILE}: {wrong[0]} does not fit adapter_config.json; save it again")
    for short, name in names.items():
        state[name].copy_(weights[short])
    return loop


def _other_base(config: LoopConfig, model: Any) -> str | None:
    """What tells a model from the one that the loop was trained on; None where nothing does."""
    its = config.trained_on
    if config.base_config_digest != digest_of(model.config):
        return (its.other_shape(model.config) if its else None) or "it has another shape"
    return its.other_weights(tower_of(model).text) if its else None


def _names(model: Any) -> dict[str, str]:
    """Name in the file → name in the model, whose text tower lies elsewhere in each class."""
    tower, loop = tower_of(model), loop_of(model)
    assert loop is not None
    found = {short: f"{NAME}.{short}" for short, _ in loop.named_parameters()}
    return found | {name: tower.prefix + name for name, _ in tower.text.named_parameters() if ".lora_" in name}
