"""A key-value cache is exact: what is generated with it is what is generated without."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from engines.base import EngineError
from tests.engines.looped_models import KINDS, base, looped, tokens

NEW = 10


@torch.no_grad()
def written(model: Any, ids: Tensor, **options: Any) -> Tensor:
    settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False} | options
    mask = (ids != 0).long()
    found: Tensor = model.generate(input_ids=ids, attention_mask=mask, **settings)[:, ids.shape[1] :]
    return found


def padded() -> Tensor:
    """Three prompts of 8, 5 and 3 tokens, padded on the left."""
    ids = tokens(3, 8)
    ids[1, :3], ids[2, :5] = 0, 0
    return ids


@pytest.mark.parametrize("iterations", [0, 1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_with_a_cache_as_without_and_in_a_batch_as_alone(kind: str, iterations: int) -> None:
    model, ids = base(kind), padded()
    looped(model).iterations = iterations
    batch = written(model, ids)
    assert torch.equal(batch, written(model, ids, use_cache=False))
    alone = [written(model, row[row != 0][None]) for row in ids]
    assert torch.equal(batch, torch.cat(alone))
    assert len({tuple(row) for row in batch.tolist()}) == 3  # or one answer for all would do


def test_the_iterations_are_seen_in_what_is_written() -> None:
    model = base()
    loop = looped(model)
    found = set()
    for loop.iterations in (0, 1, 2, 4):
        found.add(tuple(written(model, tokens()).flatten().tolist()))
    assert len(found) == 4


@pytest.mark.parametrize("kind", ["llama", "sliding"])
def test_beams_take_the_iterations_keys_along(kind: str) -> None:
    model = base(kind)
    looped(model)
    beams = {"num_beams": 4, "num_return_sequences": 2}
    expected = written(model, padded(), use_cache=False, **beams)
    assert torch.equal(written(model, padded(), **beams), expected)
    assert not torch.equal(written(model, padded()), expected[::2])  # a beam search that only ever follows its best


@torch.no_grad()
def test_each_iteration_reads_keys_of_its_own() -> None:
    model = base()
    looped(model, iterations=2)
    ids = tokens(1, 12)
    whole = model(input_ids=ids, use_cache=False).logits[:, 7:]
    first, last = (model(input_ids=ids[:, :7]).past_key_values for _ in range(2))
    assert len(first.layers) == 6 + 2 * 2
    last.layers[6:8] = copy.deepcopy(last.layers[8:10])  # as in a cache that keeps only the last iteration
    found, other = (model(input_ids=ids[:, 7:], past_key_values=cache).logits for cache in (first, last))
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-3)
    assert (other - whole).abs().max() > 0.1


@pytest.mark.parametrize("cache", [None, DynamicCache()])
def test_a_cropped_cache_goes_on_where_it_was_cut(cache: Any) -> None:
    model = base()
    looped(model)
    ids, other = tokens(1, 12), tokens(1, 12, seed=1)
    with torch.no_grad():
        cache = model(input_ids=torch.cat([ids[:, :6], other[:, 6:]], 1), past_key_values=cache).past_key_values
        cache.crop(-6)
        found = model(input_ids=ids[:, 6:], past_key_values=cache).logits
        expected = model(input_ids=ids, use_cache=False).logits[:, 6:]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@torch.no_grad()
def test_a_filled_cache_keeps_its_number_of_iterations() -> None:
    model = base()
    loop = looped(model, iterations=2)
    ids = tokens(1, 8)
    cache = model(input_ids=ids[:, :4]).past_key_values
    for loop.iterations in (0, 1, 3):
        with pytest.raises(EngineError, match=f"filled with 2 iterations and the model now makes {loop.iterations}"):
            model(input_ids=ids[:, 4:], past_key_values=cache)
    loop.iterations = 2
    found = model(input_ids=ids[:, 4:], past_key_values=cache).logits  # which the refusals left as it was
    torch.testing.assert_close(found, model(input_ids=ids).logits[:, 4:], rtol=0, atol=1e-3)
    loop.iterations = 0
    cache = model(input_ids=ids[:, :4]).past_key_values
    loop.iterations = 1
    with pytest.raises(EngineError, match="filled with 0 iterations and the model now makes 1"):
        model(input_ids=ids[:, 4:], past_key_values=cache)


@torch.no_grad()
def test_an_emptied_cache_takes_another_number_of_iterations() -> None:
    model = base()
    loop = looped(model, iterations=3)
    ids = tokens(1, 8)
    cache = model(input_ids=ids[:, :5]).past_key_values
    cache.crop(-5)
    loop.iterations = 1
    model(input_ids=ids[:, :5], past_key_values=cache)
    found = model(input_ids=ids[:, 5:], past_key_values=cache).logits
    assert len(cache.layers) == 6 + 2
    torch.testing.assert_close(found, model(input_ids=ids).logits[:, 5:], rtol=0, atol=1e-3)


@torch.no_grad()
def test_a_static_cache_is_refused_unless_there_are_no_iterations() -> None:
    model = base()
    loop = looped(model)
    cache = StaticCache(config=model.config, max_cache_len=16)
    with pytest.raises(EngineError, match="dynamic cache, not in this StaticCache"):
        model(input_ids=tokens(), past_key_values=cache)
    with pytest.raises(EngineError, match="leave out cache_implementation"):
        written(model, tokens(), cache_implementation="static")
    loop.iterations = 0
    assert torch.equal(written(model, tokens(), cache_implementation="static"), written(base(), tokens()))


def test_a_loss_at_several_iterations_takes_no_cache() -> None:
    model = base()
    loop = looped(model)
    with loop.aligned(2, (1, 2)), pytest.raises(EngineError, match="use_cache=False"):
        model(input_ids=tokens(), use_cache=True)
