"""Prompts that several rows of a batch share, run through the model once.

`generate` is asked for all rows, so that positions and masks are made as ever. Its first forward pass alone sees each
prompt once: a hook takes the other rows out before it, and another puts them into its logits and its cache after it.
Every model is served whose cache a beam search can reorder: causal and vision-language ones, with sliding windows or a
loop. Encoder-decoders, and the few old classes that keep their past in another way, run the plain way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

_PER_PROMPT = ("pixel_values",)
"""Inputs that only the first forward pass reads: `generate` need not hold them for every row."""


def can_share(model: Any) -> bool:
    """Whether the model keeps its past in a cache whose rows can be chosen."""
    inner = _generating(model)
    return bool(inner._supports_default_dynamic_cache()) and not inner.config.is_encoder_decoder


@contextmanager
def shared_prompts(model: Any, inputs: Mapping[str, Tensor], prompts: Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """What to hand `model.generate`, once and inside the context, so that row i continues prompt `prompts[i]`.

    `inputs`: a processor's tensors for the prompts, left-padded, each prompt with one image or all without. Each prompt
    has to be continued by a row. The result is that of all rows in one batch, up to rounding.
    """
    rows = torch.tensor(prompts, device=inputs["input_ids"].device)
    first_rows = torch.tensor([prompts.index(prompt) for prompt in range(len(inputs["input_ids"]))], device=rows.device)
    caches: list[Cache] = []

    def once(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        before.remove()
        caches.extend(each for each in kwargs.values() if isinstance(each, Cache))
        given = {name: tensor for name, tensor in inputs.items() if name in kwargs}
        if (positions := kwargs.get("position_ids")) is not None:  # [rows, tokens], or several kinds of them
            given["position_ids"] = positions.index_select(-2, first_rows)
        return args, kwargs | given

    def for_all(module: Any, args: tuple[Any, ...], output: Any) -> Any:
        after.remove()
        output.logits = output.logits[:, -1:].index_select(0, rows)
        for cache in caches:
            cache.reorder_cache(rows)
        return output

    generating = _generating(model)
    before = generating.register_forward_pre_hook(once, with_kwargs=True)
    after = generating.register_forward_hook(for_all)
    try:
        yield {
            name: tensor if name in _PER_PROMPT or len(tensor) != len(first_rows) else tensor.index_select(0, rows)
            for name, tensor in inputs.items()
        }
    finally:
        before.remove()
        after.remove()


def _generating(model: Any) -> Any:
    """The model whose forward pass `generate` calls: inside PEFT's, where there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
