"""The decoder layers of a language model, or of the text tower of a vision-language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engines.base import EngineError


@dataclass(frozen=True, slots=True)
class Tower:
    """`text` runs `layers` one after the other, then `norm`."""

    text: Any
    layers: tuple[Any, ...]
    norm: Any
    name: str
    """Of `text` among the modules of the model."""

    @property
    def prefix(self) -> str:
        """Of the names of what is inside `text`, among those of the model."""
        return f"{self.name}." if self.name else ""

    def check_span(self, span: range) -> None:
        """Raises `EngineError` where the tower has not all of these layers."""
        if span.stop > len(self.layers):
            raise EngineError(
                f"loop.layers: [{span.start}, {span.stop}] ends behind the model's last layer; it has "
                f"{len(self.layers)}, counted from 0"
            )


def tower_of(model: Any) -> Tower:
    """The tower of a transformers model. Raises `EngineError` for a model that has none of the usual form."""
    text = model.get_decoder()
    layers, norm = getattr(text, "layers", None), getattr(text, "norm", None)
    if layers is None or norm is None or not all(hasattr(_attention(layer), "layer_idx") for layer in layers):
        raise EngineError(
            f"{type(model).__name__}: only decoders that are a list `layers` of blocks with `self_attn`, "
            "and a `norm` behind them, can be looped (Llama, Qwen, Mistral, LLaVA and their like)"
        )
    name = next(name for name, module in model.named_modules() if module is text)
    return Tower(text, tuple(layers), norm, name)


def _attention(layer: Any) -> Any:
    return getattr(layer, "self_attn", None)
