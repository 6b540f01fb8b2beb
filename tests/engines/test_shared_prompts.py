"""Samples of one problem share its prompt: it is run once, and nothing else of the result changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GenerationConfig,
    MambaConfig,
    MambaForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from engines.base import Decoding, Request
from engines.checkpoint import load_model, load_processor
from engines.looped.loop import loop_of
from engines.shared_prompts import can_share, shared_prompts, shared_rows
from engines.transformers import TransformersEngine
from tests.engines.conftest import QUESTIONS, turns
from tests.engines.looped_models import KINDS, base, looped, tokens

PROMPTS = [0, 2, 0, 1, 2, 2, 1]
"""Which of three prompts each row continues."""


@contextmanager
def rows_of(model: Any) -> Iterator[list[int]]:
    """How many rows each forward pass has."""
    rows: list[int] = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    yield rows
    handle.remove()


@pytest.mark.parametrize("loop", [False, True], ids=["plain", "looped"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_shared_prompts_are_rows_of_prompts_of_their_own(kind: str, loop: bool) -> None:
    """Greedy logits, unequal prompts padded on the left; sliding windows that the prompts outgrow."""
    # In single precision some processors add up rows of another batch in another order, and loops make that grow.
    model = base(kind, dtype=torch.float64)
    if loop:
        looped(model)
    ids = tokens(3, 9)
    mask = torch.ones_like(ids)
    mask[0, :4] = mask[2, :1] = 0
    ids[mask == 0] = 0
    inputs, rows = {"input_ids": ids, "attention_mask": mask}, torch.tensor(PROMPTS)
    config = GenerationConfig(
        max_new_tokens=6, do_sample=False, eos_token_id=63, pad_token_id=0, return_dict_in_generate=True,
        output_logits=True,
    )  # fmt: skip
    with torch.inference_mode():
        expected = model.generate(**{name: each[rows] for name, each in inputs.items()}, generation_config=config)
        with rows_of(model) as seen, shared_prompts(model, inputs, PROMPTS) as given:
            found = model.generate(**given, generation_config=config)
    assert seen[0] == 3 and set(seen[1:]) == {len(PROMPTS)}
    assert torch.equal(found.sequences, expected.sequences)
    for ours, theirs in zip(found.logits, expected.logits, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert len(set(map(tuple, found.sequences.tolist()))) == 3


def test_a_model_is_left_as_it_was_also_by_a_failure() -> None:
    model = base()
    inputs = {"input_ids": tokens(3, 9), "attention_mask": torch.ones(3, 9, dtype=torch.long)}
    before = len(model._forward_pre_hooks), len(model._forward_hooks)
    with pytest.raises(ValueError, match="model_kwargs"), shared_prompts(model, inputs, PROMPTS) as given:
        model.generate(**given, nonsense=1)
    assert (len(model._forward_pre_hooks), len(model._forward_hooks)) == before


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("kind", ["llama", "sliding", "qwen2_5_vl", "mamba"])
def test_rows_that_others_make_are_shared_in_the_cache_that_the_checkpoint_asks_for(kind: str, cache: Any) -> None:
    model = mamba() if kind == "mamba" else base(kind, dtype=torch.float64)
    model.generation_config.cache_implementation = cache
    rows = torch.tensor([0, 0, 1, 0, 1])
    ids = tokens(2, 9)[rows]
    mask = torch.ones_like(ids)
    mask[rows == 1, :4] = 0
    config = GenerationConfig(max_new_tokens=6, do_sample=True, eos_token_id=63, pad_token_id=0, disable_compile=True)
    passes: list[set[int]] = []

    def looks(module: Any, args: Any, kwargs: Any) -> None:
        of_rows = [kwargs.get(name) for name in ("input_ids", "attention_mask", "mm_token_type_ids")]
        passes.append({len(each) for each in of_rows if isinstance(each, torch.Tensor)})

    given = {"input_ids": ids, "attention_mask": mask}
    if kind == "qwen2_5_vl":
        given["mm_token_type_ids"] = torch.zeros_like(ids)

    def sampled() -> torch.Tensor:
        torch.manual_seed(1)
        return model.generate(**given, generation_config=config)  # type: ignore[no-any-return]

    alone = sampled()
    with shared_rows(model, rows.tolist()):
        model.register_forward_pre_hook(looks, with_kwargs=True)
        shared = sampled()
    assert passes[0] == {2} and all(each == {5} for each in passes[1:])
    assert torch.equal(shared, alone) and len(set(map(tuple, shared.tolist()))) == 5


def test_beams_run_the_plain_way() -> None:
    model, ids = base(), tokens(2, 9).repeat_interleave(2, 0)
    config = GenerationConfig(max_new_tokens=6, do_sample=False, num_beams=2, eos_token_id=63, pad_token_id=0)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "generation_config": config}
    alone = model.generate(**given)
    with shared_rows(model, [0, 0, 1, 1]):
        assert torch.equal(model.generate(**given), alone)


def mamba() -> Any:
    """Its past is a state, which stands in the cache."""
    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=4)).eval()


def test_a_class_that_keeps_a_state_in_its_layers_runs_the_plain_way() -> None:
    """With another number of rows than in the pass before it begins from nothing, and says no word of it."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "lru_width": 32}
    config = RecurrentGemmaConfig(vocab_size=64, num_hidden_layers=3, attention_window_size=8, **sizes)
    assert not can_share(RecurrentGemmaForCausalLM(config))
    assert can_share(mamba()) and can_share(base("sliding"))


# ── The engine ────────────────────────────────────────────────────────────────────────────────────────────────────

MANY = 64


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava", "qwen2_5_vl in a loop"])
def model_and_processor(request: pytest.FixtureRequest, make_vlm: Callable[..., Path]) -> tuple[Any, Any]:
    architecture, *loop = request.param.split(" ", 1)
    checkpoint = str(make_vlm(architecture, lively=True))
    model = load_model(checkpoint)
    if loop:
        looped(model)
    return model, load_processor(checkpoint)


def samples(images: Sequence[str], each: int = 5) -> list[Request]:
    """Several samples of problems with one of two images and without, whose prompts have several lengths."""
    problems = [
        (f"{question} " * (1 + n % 2), image)
        for n, question in enumerate(QUESTIONS[:3])
        for image in (images[0], images[1], None)
    ]
    return [
        Request(f"{p}/{k}", turns(question), image, Decoding(8, temperature=1.0, top_p=0.9), seed=100 * p + k)
        for p, (question, image) in enumerate(problems)
        for k in range(each)
    ]


@pytest.mark.parametrize("batch_size", [1, 3, MANY])
def test_samples_are_those_of_prompts_run_for_each(
    batch_size: int,
    model_and_processor: tuple[Any, Any],
    images: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = samples(images, each=3 if batch_size == 1 else 5)
    with rows_of(model_and_processor[0]) as seen:
        shared = list(TransformersEngine(*model_and_processor, batch_size).generate(asked))
    monkeypatch.setattr("engines.transformers.can_share", lambda model: False)
    assert shared == list(TransformersEngine(*model_and_processor, batch_size).generate(asked))
    assert len({each.token_ids for each in shared}) > len(asked) // 2
    if batch_size == MANY:  # six prompts with an image in a batch, and three without
        assert seen[0] == 6 and seen.count(3) == 1 and {6, 3, 30, 15} == set(seen)


def test_the_order_of_the_requests_does_not_matter(model_and_processor: tuple[Any, Any], images: list[str]) -> None:
    asked = samples(images)
    engine = TransformersEngine(*model_and_processor, batch_size=5)
    expected = {each.id: each for each in engine.generate(asked)}
    shuffled = random.Random(0).sample(asked, len(asked))
    with rows_of(model_and_processor[0]) as seen:
        assert [each.id for each in engine.generate(shuffled)] == [request.id for request in shuffled]
    assert seen.count(1) == 9  # each batch holds the five samples of a problem
    assert {each.id: each for each in engine.generate(shuffled)} == expected


def test_requests_of_one_prompt_that_differ_otherwise(
    model_and_processor: tuple[Any, Any], images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"not an image")
    warm = samples(images, each=1)[0]
    others = (Decoding(8), Decoding(3, 1.0), Decoding(8, 0.5), Decoding(8, 1.0, stop=("e",)), Decoding(500))
    asked = [
        *(replace(warm, id=str(n), decoding=decoding) for n, decoding in enumerate(others)),
        *(replace(warm, id=f"torn {n}", image=str(torn), seed=n) for n in range(2)),
        *(replace(warm, id=f"long {n}", messages=turns("what? " * 600), seed=n) for n in range(2)),
        warm,
    ]
    engine = TransformersEngine(*model_and_processor, batch_size=MANY)
    shared = list(engine.generate(asked))
    assert [each.id for each in shared if each.error] == ["4", "torn 0", "torn 1", "long 0", "long 1"]
    monkeypatch.setattr("engines.transformers.can_share", lambda model: False)
    assert shared == list(engine.generate(asked))


def test_a_model_with_adapters_in_training(model_and_processor: tuple[Any, Any], images: list[str]) -> None:
    from peft import LoraConfig, get_peft_model

    model, processor = model_and_processor
    if loop_of(model) is not None:
        pytest.skip("a model has adapters or a loop")
    asked = samples(images)[:10]
    expected = list(TransformersEngine(model, processor, MANY).generate(asked))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))  # adds nothing until it is trained
    with rows_of(adapted) as seen:
        assert list(TransformersEngine(adapted, processor, MANY).generate(asked)) == expected
    assert seen[0] == 2 and adapted.training
    adapted.unload()
