"""What is looped and how, as a recipe says it and as a checkpoint's directory keeps it. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engines.base import EngineError
from engines.json_file import read_object
from engines.looped.trained_on import TrainedOn, shape_of

PEFT_TYPE = "LATENT_LOOP"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoopSettings(_Settings):
    """A loop over a span of layers, after SR² (arXiv 2510.08222).

    h_0 is the span's output; for k = 1 … `iterations`
    u = h_{k-1} + [k ≤ `input_iterations`] γ_in ⊙ e, y = span(u · rms(e) / rms(u)), h_k = h_{k-1} + tanh(γ_mix) ⊙ (y −
    h_{k-1}), where e is what enters the span and the gates γ have one value for each hidden unit.
    """

    iterations: int = Field(2, ge=0, description="passes through the looped layers beyond the model's own; K")
    input_iterations: int = Field(1, ge=0, description="first passes that read the input of the layers again; R")
    layers: tuple[int, int] | None = Field(
        None, description="the first looped layer and the one after the last; a span from a third of the depth on"
    )
    state_scale: Literal["match_input", "none"] = Field(
        "match_input", description="bring the state to the size of the layers' input before each pass"
    )
    gate_init: float = Field(
        0.0, allow_inf_nan=False, description="γ_mix at the start; at 0 the model begins as its base"
    )
    align_every: int = Field(1, ge=1, description="iterations between losses; the gradient ends at each of them")
    align_final: bool = Field(True, description="a loss at the last iteration, whether or not it is such a one")
    lora_sets: Literal["shared", "per_iteration"] = Field(
        "shared", description="with `lora`: one set of weights for all iterations, or one for each"
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.layers is not None and not 0 <= self.layers[0] < self.layers[1]:
            raise ValueError(f"layers {list(self.layers)}: give the first layer and the one after the last")
        if self.iterations and not self.align_final and self.align_every > self.iterations:
            raise ValueError(
                f"align_every {self.align_every} is more than iterations {self.iterations}, and align_final is false: "
                "there would be no loss"
            )
        return self

    def aligned(self, iterations: int) -> tuple[int, ...]:
        """The iterations up to `iterations` (1 or more) that have a loss, ascending; the last where none would."""
        found = {k for k in range(1, iterations + 1) if k % self.align_every == 0}
        return tuple(sorted(found | {iterations} if self.align_final or not found else found))


class LoopLora(_Settings):
    """Low-rank weights that act in the loop alone. `modules` are the names of linear layers inside a decoder layer."""

    r: int = Field(ge=1)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    modules: tuple[str, ...]


class LoopConfig(_Settings):
    """`adapter_config.json` of a looped checkpoint."""

    peft_type: Literal["LATENT_LOOP"]
    base_model_name_or_path: str
    base_config_digest: str
    trained_on: TrainedOn | None = Field(None, description="the base as it was; an adapter may not say")
    revision: str | None = Field(description="of the base on the hub")
    loop: LoopSettings
    lora: LoopLora | None

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        if self.loop.layers is None:
            raise ValueError("loop.layers: which layers are looped has to be said here")
        return self

    @property
    def span(self) -> range:
        """The looped layers' numbers."""
        assert self.loop.layers is not None  # as validated
        return range(*self.loop.layers)

    def write(self, directory: Path) -> None:
        """Into `directory`."""
        (directory / CONFIG_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> LoopConfig:
        """Of `directory`. Raises `EngineError` with the first thing that is wrong."""
        try:
            return cls.model_validate_json((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise EngineError(f"{directory / CONFIG_FILE}: {place}: {first['msg']}") from None


def is_looped(path: Path) -> bool:
    """True for the directory of a looped checkpoint."""
    file = path / CONFIG_FILE
    return file.is_file() and read_object(file).get("peft_type") == PEFT_TYPE


def without_loop(checkpoint: str, engine: str) -> str:
    """The checkpoint itself, or the base of a looped one that makes no iterations.

    Raises `EngineError` for one that makes some, which `engine` cannot.
    """
    if not is_looped(Path(checkpoint)):
        return checkpoint
    config = LoopConfig.read(Path(checkpoint))
    if config.loop.iterations:
        raise EngineError(
            f"{checkpoint}: {engine} cannot run a looped checkpoint ({config.loop.iterations} iterations); "
            f"give engine.kind=transformers, or its base {config.base_model_name_or_path}, which it is without the loop"
        )
    return config.base_model_name_or_path


def default_layers(depth: int) -> tuple[int, int]:
    """An eighth of `depth` layers, but two, from a third of the depth on: the first, and the one after the last."""
    count = min(depth, max(2, round(depth / 8)))
    first = min(round(depth / 3), depth - count)
    return first, first + count


def digest_of(config: Any) -> str:
    """Of the shape of the model that has this transformers config."""
    shape = json.dumps([config.model_type, shape_of(config)], sort_keys=True)
    return hashlib.sha256(shape.encode()).hexdigest()[:16]
