"""What is put to a model: nothing is lost by its template, and every turn that it learns has an end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.checkpoint import load_model, load_processor
from engines.rendering import Renderer

ASKED = [{"role": "user", "content": "What is on the mat?"}]
BRIEFED = [{"role": "system", "content": "Be short."}, *ASKED]


@pytest.fixture(params=["qwen2_5_vl", "llava"])
def renderer(request: pytest.FixtureRequest, make_vlm: Callable[..., Path]) -> Renderer:
    checkpoint = str(make_vlm(request.param))
    return Renderer(load_processor(checkpoint), load_model(checkpoint).config)


@pytest.mark.parametrize("image", [True, False])
def test_no_word_is_lost(renderer: Renderer, image: bool) -> None:
    """LLaVA's template reads the parts of a content and passes over one that is plain text."""
    text = renderer.prompt_text(BRIEFED, image)
    assert "What is on the mat?" in text and "Be short." in text
    assert ("image" in text) is image


def test_a_prompt_begins_as_the_tokenizer_begins_a_text(renderer: Renderer) -> None:
    ids = renderer.prompt_ids(ASKED, True)
    usual = renderer.tokenizer("x")["input_ids"]
    begin = renderer.tokenizer.bos_token_id
    assert (ids[0] == begin) is (usual[0] == begin) or begin is None
    assert ids.count(begin) == (0 if begin is None else 1)


@pytest.mark.parametrize("image", [True, False])
def test_how_a_prompt_begins_is_told(renderer: Renderer, image: bool) -> None:
    told = renderer.beginning(ASKED, image)
    ids = renderer.prompt_ids(ASKED, image)
    assert (told["tokens"], told["first_ids"]) == (len(ids), ids[:64])
    assert renderer.prompt_text(ASKED, image).startswith(told["first_text"])
    assert told["bos_tokens"] == (0 if told["bos_token"] is None else 1)
    limits = renderer.processor.image_processor.size
    assert told["pixels"]["size"] == {key: value for key, value in dict(limits).items() if value is not None}
    assert json.loads(json.dumps(told)) == told
    renderer.tokenizer.bos_token = renderer.tokenizer.convert_ids_to_tokens(ids[0])
    assert renderer.beginning(ASKED, image)["bos_tokens"] == 1


@pytest.mark.parametrize("image", [True, False])
def test_a_target_ends_with_the_token_that_stops_generation(renderer: Renderer, image: bool) -> None:
    """LLaVA's template writes no end of turn; a model tuned on it as it stands would never stop."""
    target = renderer.target_text(ASKED, "a cat", image)
    assert target.strip() == f"a cat{renderer.tokenizer.eos_token}"
    assert renderer.target_ids(ASKED, "a cat", image)[-1] == renderer.tokenizer.eos_token_id
