"""A model's weights under the names and in the form in which a serving engine takes them up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from engines.base import EngineError

if TYPE_CHECKING:
    import torch

# transformers 5 dropped a level of LLaVA's vision tower that vLLM still expects: (model type, here, there).
_RENAMES = {"llava": (("vision_tower.", "vision_tower.vision_model."),)}
_HEAD, _EMBEDDING = "lm_head.weight", "embed_tokens.weight"


def is_renamed(config: Any) -> bool:
    """Whether files that transformers saves for this type of model carry names that vLLM cannot load."""
    return getattr(config, "model_type", None) in _RENAMES


def named_weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of a model in training, LoRA adapters added in: what `VllmEngine.update_weights` wants.

    `model`: a transformers model, or a PEFT model around one. It is only read. Merging into the live model and taking
    the adapters out again would leave a rounding error in the base with every round, in bf16 a large one.

    Raises `EngineError` for an adapter that is no plain sum with its base (DoRA, not LoRA at all, a loop).
    """
    import torch
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    from engines.looped.loop import loop_of

    if loop_of(model) is not None:
        raise EngineError("vLLM cannot run a looped model; give sampler=transformers, or take the loop off")
    if not isinstance(model, PeftModel):
        yield from model.named_parameters()
        return
    inner = model.get_base_model()
    layers = {name: module for name, module in inner.named_modules() if isinstance(module, BaseTunerLayer)}
    for name, layer in layers.items():
        if not isinstance(layer, LoraLayer) or any(layer.use_dora.get(adapter) for adapter in layer.active_adapters):
            raise EngineError(
                f"{name}: a {type(layer).__name__} adapter cannot be sent; save it and open the directory"
            )
    for name, parameter in inner.named_parameters():
        owner, _, leaf = name.rpartition(".base_layer.")
        if owner in layers:
            layer = layers[owner]
            weight = parameter.detach()
            if leaf == "weight" and not layer.merged:
                with torch.no_grad():
                    for adapter in layer.active_adapters:
                        if adapter in layer.scaling:
                            weight = weight + layer.get_delta_weight(adapter).to(weight.dtype)
            yield f"{owner}.{leaf}", weight
        elif any(name.startswith(f"{layer}.") for layer in layers) or ".original_module." in name:
            continue  # the adapter's own parameters, and what `modules_to_save` replaced
        else:
            for adapter in model.active_adapters:
                name = name.replace(f".modules_to_save.{adapter}.", ".")
            yield name, parameter


def for_serving(named: Iterable[tuple[str, torch.Tensor]], config: Any) -> list[tuple[str, torch.Tensor]]:
    """`named` (names of the model in memory) as a list of copies under the names vLLM's loader knows.

    Three silent faults end here. A caller may yield views that it takes back afterwards (a merged adapter, say), so
    each tensor is copied while iterating. A model whose output head shares the embedding has no parameter for the
    head, and vLLM's own copy would stay as it was, so it is added. And unmerged adapter weights are refused, as they
    would be ignored.
    """
    renames = _RENAMES[config.model_type] if is_renamed(config) else ()
    out: list[tuple[str, torch.Tensor]] = []
    for name, tensor in named:
        if "lora_" in name or ".base_layer." in name:
            raise EngineError(f"{name}: adapter weights are not merged; pass engines.weights.named_weights(model)")
        for here, there in renames:
            if here in name and there not in name:
                name = name.replace(here, there)
        out.append((name, tensor.detach().clone()))
    tied = getattr(config.get_text_config(), "tie_word_embeddings", False) or config.tie_word_embeddings
    if tied and not any(name == _HEAD for name, _ in out):
        out.extend((_HEAD, tensor) for name, tensor in list(out) if name.endswith(_EMBEDDING))
    return out
