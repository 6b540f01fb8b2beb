"""Prompts that several rows of a batch share, run through the model once.

`generate` is asked for all rows, so that positions and masks are made as ever. Its first forward pass alone sees each
prompt once: a hook takes the other rows out before it, and another puts them into its logits and its cache after it.
`shared_prompts` makes the batch of a processor's tensors, images included; `shared_rows` is for one that others make.
Every model is served whose cache a beam search can reorder: causal and vision-language ones, with sliding windows, a
state or a loop. Encoder-decoders, and the few classes that keep their past in another way, run the plain way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import Cache

Kwargs: TypeAlias = dict[str, Any]

_PER_PROMPT = ("pixel_values",)
"""Inputs that only the first forward pass reads: `generate` need not hold them for every row."""
_OF_TEXT = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Inputs of the forward pass that have a row for each row of a batch without images."""
_IN_LAYERS = ("recurrent_gemma",)
"""Classes whose layers keep a state themselves, beside the cache, and forget it in silence where rows become more."""


def can_share(model: Any) -> bool:
    """Whether the model keeps its past in a cache whose rows can be chosen."""
    inner = _generating(model)
    known = inner._supports_default_dynamic_cache() and inner.config.model_type not in _IN_LAYERS
    return bool(known) and not inner.config.is_encoder_decoder


@contextmanager
def shared_prompts(model: Any, inputs: Mapping[str, Tensor], prompts: Sequence[int]) -> Iterator[dict[str, Tensor]]:
    """What to hand `model.generate`, once and inside the context, so that row i continues prompt `prompts[i]`.

    `inputs`: a processor's tensors for the prompts, left-padded, each prompt with one image or all without. Each prompt
    has to be continued by a row. The result is that of all rows in one batch, up to rounding.
    """
    rows, first_rows = _of(prompts, inputs["input_ids"].device)

    def given(kwargs: Kwargs) -> Kwargs:
        return {name: tensor for name, tensor in inputs.items() if name in kwargs}

    with _once(model, rows, first_rows, given):
        yield {
            name: tensor if name in _PER_PROMPT or len(tensor) != len(first_rows) else tensor.index_select(0, rows)
            for name, tensor in inputs.items()
        }


@contextmanager
def shared_rows(model: Any, prompts: Sequence[int]) -> Iterator[None]:
    """Inside, `model.generate` is called once, by others, with texts of which row i is that of prompt `prompts[i]`.

    Prompts are numbered from 0 in the order of their first rows.
    """
    rows, first_rows = _of(prompts, model.device)

    def given(kwargs: Kwargs) -> Kwargs:
        return {name: chosen(kwargs[name]) for name in _OF_TEXT if kwargs.get(name) is not None}

    def chosen(value: Any) -> Any:
        if isinstance(value, Mapping):  # masks, one for each kind of layer: made before the pass for a static cache
            return {kind: mask if mask is None else chosen(mask) for kind, mask in value.items()}
        return value.index_select(0, first_rows)

    with _once(model, rows, first_rows, given):
        yield


def _of(prompts: Sequence[int], device: Any) -> tuple[Tensor, Tensor]:
    """The prompt of each row, and the first row of each prompt."""
    first_rows = [prompts.index(prompt) for prompt in range(max(prompts) + 1)]
    return torch.tensor(prompts, device=device), torch.tensor(first_rows, device=device)


@contextmanager
def _once(model: Any, rows: Tensor, first_rows: Tensor, given: Callable[[Kwargs], Kwargs]) -> Iterator[None]:
    """The next forward pass sees what `given` makes of its inputs: a row for each prompt."""
    caches: list[Cache] = []

    def once(module: Any, args: tuple[Any, ...], kwargs: Kwargs) -> tuple[tuple[Any, ...], Kwargs]:
        before.remove()
        if len(kwargs["input_ids"]) != len(rows):  # `generate` has made several beams of each
            after.remove()
            return args, kwargs
        caches.extend(each for each in kwargs.values() if isinstance(each, Cache))
        fewer = given(kwargs)
        if (positions := kwargs.get("position_ids")) is not None:  # [rows, tokens], or several kinds of them
            fewer["position_ids"] = positions.index_select(-2, first_rows)
        return args, kwargs | fewer

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
        yield
    finally:
        before.remove()
        after.remove()


def _generating(model: Any) -> Any:
    """The model whose forward pass `generate` calls: inside PEFT's, where there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
