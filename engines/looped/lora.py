"""Low-rank weights on looped layers: off in the model's own pass, on in the loop's.

One set for each pass is the relaxation of arXiv 2410.20672.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from engines.base import EngineError
from engines.looped.config import LoopConfig, LoopLora
from engines.looped.tower import Tower


class LowRank(Protocol):
    """What is asked for: `target_modules` is `all-linear`, or a pattern of names within a decoder layer."""

    @property
    def r(self) -> int: ...
    @property
    def alpha(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def target_modules(self) -> str: ...


def resolved(lora: LowRank, layer: Any) -> LoopLora:
    """With the names of the linear layers inside a decoder layer, which may carry LoRA already.

    Raises `EngineError` where none matches.
    """
    from torch import nn

    names = [
        name.removesuffix(".base_layer")
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    ]
    found = tuple(n for n in names if lora.target_modules == "all-linear" or re.fullmatch(lora.target_modules, n))
    if not found:
        raise EngineError(
            f"lora.target_modules {lora.target_modules}: matches none of a layer's {', '.join(names)}, nor is it "
            "all-linear"
        )
    return LoopLora(r=lora.r, alpha=lora.alpha, dropout=lora.dropout, modules=found)


class LoopedLora:
    """The LoRA layers that PEFT put around linear layers of a span, and which of their sets acts."""

    def __init__(self, model: Any, tower: Tower, config: LoopConfig) -> None:
        """Puts them there, with no set acting."""
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        lora = config.lora
        assert lora is not None
        self._shared = config.loop.lora_sets == "shared"
        self._sets = ["shared"] if self._shared else [f"iteration_{k + 1}" for k in range(config.loop.iterations)]
        targets = [f"{tower.prefix}layers.{i}.{name}" for i in config.span for name in lora.modules]
        for name in self._sets:
            chosen = LoraConfig(r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
            inject_adapter_in_model(chosen, model, name)
            # It is no model of PEFT's: whoever looks for this would load, merge and save it as one.
            del model.peft_config
        self._layers: list[Any] = [model.get_submodule(target) for target in targets]
        assert all(isinstance(layer, LoraLayer) for layer in self._layers)
        self._targets = targets
        for parameter in self.parameters():
            parameter.data = parameter.data.float()  # in bfloat16 small updates are rounded away
            parameter.requires_grad_(True)
        self.switch(None)

    def switch(self, iteration: int | None) -> None:
        """Lets the set of an iteration act, or none."""
        # Not by `set_adapter` and `enable_adapters`: they also switch `requires_grad`, and a set that is switched off
        # before the backward pass gets no gradient.
        for layer in self._layers:
            layer._disable_adapters = iteration is None
            if iteration is not None:
                layer._active_adapter = self._sets[0 if self._shared else iteration - 1]

    def parameters(self) -> list[Any]:
        """All of its weights."""
        return [p for layer in self._layers for name, p in layer.named_parameters() if name.startswith("lora_")]

    def remove(self, model: Any) -> None:
        """Puts the linear layers themselves back."""
        for target, layer in zip(self._targets, self._layers, strict=True):
            parent, _, name = target.rpartition(".")
            setattr(model.get_submodule(parent), name, layer.get_base_layer())
