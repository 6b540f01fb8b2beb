"""Key-value caches with room for a loop: one virtual layer for each pass through each looped layer.

A pass k of a token attends to pass k of the tokens before it, so a cache is exact only if no two passes share a layer.
The virtual layers lie behind the real ones: a cache walks its list of layers to reorder, crop, select or repeat rows,
so they follow.
"""

from __future__ import annotations

from typing import Any

from engines.base import EngineError


def virtual_index(depth: int, looped: int, iteration: int, offset: int) -> int:
    """Where iteration 1, 2, … of the `offset`-th of `looped` layers keeps its keys, in a model of `depth` layers."""
    return depth + (iteration - 1) * looped + offset


def check_cache(cache: Any, depth: int, looped: int, iterations: int) -> None:
    """Prepares a cache for a forward pass with so many iterations.

    Raises:
        EngineError: it was filled with another number of them, or is of a kind that cannot hold any.
    """
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    kinds = {type(layer) for layer in cache.layers} | ({cache.layer_class_to_replicate} - {None})
    if iterations and (cache.offloading or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}):
        kind = "offloaded" if cache.offloading else " and ".join(sorted(each.__name__ for each in kinds))
        raise EngineError(
            f"a looped model keeps its iterations in a dynamic cache, not in this {type(cache).__name__} ({kind}); "
            "leave out cache_implementation, or set the iterations to 0"
        )
    if cache.get_seq_length() == 0:
        del cache.layers[depth:]
    elif (filled := (len(cache.layers) - depth) // looped) != iterations:
        raise EngineError(
            f"this cache was filled with {filled} iterations and the model now makes {iterations}; "
            "begin with a new cache, or set the iterations back"
        )


def make_room(cache: Any, depth: int, span: range, iterations: int) -> None:
    """Gives a checked cache the virtual layers that it has not yet, each of the class of the layer it stands for."""
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    while len(cache.layers) < depth:  # made without a config: such a cache makes its layers as they are met
        cache.layers.append(cache.layer_class_to_replicate())
    while len(cache.layers) < depth + iterations * len(span):
        real = cache.layers[span[(len(cache.layers) - depth) % len(span)]]
        sliding = isinstance(real, DynamicSlidingWindowLayer)
        cache.layers.append(DynamicSlidingWindowLayer(real.sliding_window) if sliding else DynamicLayer())
        if sliding:
            cache.layers[-1].record_past = real.record_past
