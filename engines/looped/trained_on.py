"""The model that a loop was trained on, as the loop's directory keeps it, and whether another one took its place."""

from __future__ import annotations

import math
import os
from typing import Any

from pydantic import BaseModel, ConfigDict

# What two bases must share for an adapter to fit both. Not all of a config: a later transformers adds keys to it.
_SHAPE = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
_VALUES = 32
_FAR = 0.25
"""Relative distance from which on two samples are of other models. bfloat16 rounds by 0.004 at most, 60 steps of LoRA
at a rate of 2e-4 move a small model by 0.02 to 0.09; models that have nothing in common are 1.4 apart."""


class TrainedOn(BaseModel):
    """The name of the base, its shape, and a few of its weights.

    Attributes:
        model_type: of the whole model; `shape` is that of its text tower.
        weight: the first linear layer in the loop, by its name in the text tower; None where it has none of floats.
        values: some of its weights, evenly spaced.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    model_type: str
    shape: dict[str, str | int | None]
    weight: str | None = None
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, model: Any, name: str, text: Any, first: int) -> TrainedOn:
        """Of a transformers model with the text tower `text`, whose first looped layer is `first`."""
        from torch import nn

        found = cls(name=name, model_type=model.config.model_type, shape=shape_of(model.config))
        for inner, module in text.layers[first].named_modules():
            if isinstance(module, nn.Linear) and ".lora_" not in inner and (values := _sample(module)):
                weight = f"layers.{first}.{inner}".removesuffix(".base_layer")
                return found.model_copy(update={"weight": weight, "values": values})
        return found

    def other_shape(self, config: Any) -> str | None:
        """The first thing in which a model of this transformers config has another shape; None where there is none."""
        if config.model_type != self.model_type:
            return f"model_type {config.model_type}, not {self.model_type}"
        pairs = [(key, value, self.shape.get(key)) for key, value in shape_of(config).items()]
        return next((f"{key} {here}, not {there}" for key, here, there in pairs if here != there), None)

    def other_weights(self, text: Any) -> str | None:
        """How far the weights of a text tower are from these; None where they are near, or cannot be compared."""
        # Of several processes the first one looks: others may hold weights that are sent to them later (FSDP).
        if self.weight is None or os.environ.get("LOCAL_RANK", "0") != "0":
            return None
        try:
            values = _sample(text.get_submodule(self.weight))
        except AttributeError:
            return None
        if len(values) != len(self.values):
            return None
        apart, size = math.dist(values, self.values), max(math.hypot(*values), math.hypot(*self.values))
        return (
            f"the weights of {self.weight} are {apart / size:.1f} of their size apart" if apart > _FAR * size else None
        )


def shape_of(config: Any) -> dict[str, str | int | None]:
    """Of the text tower of the model that has this transformers config."""
    text = config.get_text_config()
    return {name: getattr(text, name, None) for name in _SHAPE}


def _sample(module: Any) -> tuple[float, ...]:
    """Weights of a linear layer, evenly spaced, in six digits; none where they are quantised or not there."""
    import torch

    weight = getattr(module, "weight", None)
    plain = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if weight is None or weight.dtype not in plain or weight.is_meta or not weight.numel():
        return ()
    flat = weight.detach().flatten()
    places = [number * (len(flat) - 1) // (_VALUES - 1) for number in range(_VALUES)]
    found = [float(f"{value:.6g}") for value in flat[places].tolist()]
    return tuple(found) if all(map(math.isfinite, found)) else ()
