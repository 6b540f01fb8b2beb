"""Stop strings: where a completion ends by them, whichever engine makes it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from engines.base import Decoding, Engine, Request
from engines.checkpoint import load_model, load_processor
from engines.diffusion import DiffusionEngine
from engines.rendering import Renderer, first_stop
from engines.settings import DiffusionSettings
from engines.transformers import TransformersEngine
from tests.diffusion.conftest import save
from tests.engines.conftest import stopped


@pytest.fixture(scope="module")
def engine(make_vlm: Callable[..., Path]) -> TransformersEngine:
    checkpoint = str(make_vlm(lively=True))
    return TransformersEngine(load_model(checkpoint), load_processor(checkpoint), batch_size=16)


def test_recipes_hand_a_list_and_a_mistake_is_one_line() -> None:
    made = TypeAdapter(Decoding).validate_python({"stop": ["Question:", "\n\n"]})
    assert made == Decoding(stop=("Question:", "\n\n")) and hash(made) == hash(Decoding(stop=("Question:", "\n\n")))
    assert json.loads(json.dumps(asdict(made)))["stop"] == ["Question:", "\n\n"]
    assert TypeAdapter(Decoding).validate_python(json.loads(json.dumps(asdict(made)))) == made
    for wrong, line in (([""], "stop holds an empty string"), (["a", ""], "stop holds an empty string")):
        with pytest.raises(ValidationError, match=line):
            TypeAdapter(Decoding).validate_python({"stop": wrong})
    for wrong in ("Question:", [1], ("a", None)):
        with pytest.raises(ValueError, match="stop must be a list of strings"):
            Decoding(stop=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "stop", "place"),
    [
        ("abcabc", ["c"], 2),
        ("abcabc", ["bcab", "c"], 2),
        ("abcabc", ["bc", "abc"], 1),  # both end together: the one named first
        ("abcabc", ["abc", "bc"], 0),
        ("abcabc", ["d"], None),
        ("abcabc", [], None),
    ],
)
def test_the_stop_that_is_complete_first(text: str, stop: list[str], place: int | None) -> None:
    assert first_stop(text, stop) == place


def test_a_cut_is_what_one_token_after_the_other_would_have_found(engine: TransformersEngine) -> None:
    renderer: Renderer = engine._renderer
    generator = random.Random(0)
    cuts = 0
    for _ in range(200):
        ids = generator.choices(range(len(renderer.tokenizer)), k=24)
        text = renderer.tokenizer.decode(ids, skip_special_tokens=True)
        places = [generator.randrange(len(text)) for _ in range(6)]
        drawn = [text[place : place + generator.randint(1, 4)] for place in places]
        stop = [each for each in drawn if "\ufffd" not in each][:3]  # a piece of a letter is none once it is whole
        if not stop:
            continue
        found = renderer.cut(ids, stop)
        texts = (renderer.tokenizer.decode(ids[:n], skip_special_tokens=True) for n in range(len(ids) + 1))
        n, before = next((n, each) for n, each in enumerate(texts) if any(one in each for one in stop))
        assert found == (before[: first_stop(before, stop)].strip(), tuple(ids[:n]), True)
        cuts += n < len(ids)
        assert renderer.cut(ids, ["never there"]) == (renderer.decode(ids), tuple(ids), False)
    assert cuts > 100


def assert_cut(engine: Engine, renderer: Renderer, requests: Sequence[Request]) -> None:
    """With stop strings, each completion is the one without them, cut."""
    plain = list(engine.generate(requests))
    asked = stopped(requests, plain)
    ends = 0
    for request, whole, made in zip(asked, plain, engine.generate(asked), strict=True):
        text, ids, found = renderer.cut(whole.token_ids, request.decoding.stop)
        finish = "stop" if found else whole.finish
        assert made == replace(whole, text=text, token_ids=ids, finish=finish)
        assert not any(stop in made.text for stop in request.decoding.stop)
        ends += found and len(text) < len(whole.text)
    assert ends > len(requests) // 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_transformers_cuts_and_stops_early(
    temperature: float, engine: TransformersEngine, requests_: list[Request]
) -> None:
    warm = [replace(r, decoding=Decoding(40, temperature), seed=n) for n, r in enumerate(requests_)]
    assert_cut(engine, engine._renderer, warm)
    steps: list[int] = []
    counting = engine._model.register_forward_pre_hook(lambda *_: steps.append(1))
    long = replace(warm[0], decoding=Decoding(100, temperature))
    (whole,) = engine.generate([long])
    without = len(steps)
    (made,) = engine.generate([replace(long, decoding=replace(long.decoding, stop=(whole.text[:6],)))])
    assert made.text == "" and made.finish == "stop"
    assert len(steps) - without == len(made.token_ids) < without
    counting.remove()


def test_a_stop_of_blanks_alone_is_found_at_either_end(engine: TransformersEngine) -> None:
    """A completion is stripped after it was cut, not before."""
    renderer: Renderer = engine._renderer
    ids = renderer.tokenizer("\n\nred\n\nblue")["input_ids"]
    assert renderer.cut(ids, ["\n\n"])[0] == ""
    assert renderer.cut(renderer.tokenizer("red\n\n")["input_ids"], ["\n\n"])[2]


def test_diffusion_cuts(tmp_path: Path) -> None:
    masked: Any = DiffusionEngine.open(
        DiffusionSettings(block_length=4, steps_per_block=2, batch_size=4), save(tmp_path, is_causal=False)
    )
    asked = [
        Request(str(n), [{"role": "user", "content": "abcdefgh"[: n % 5 + 1]}], None, Decoding(12, 1.0), seed=n)
        for n in range(16)
    ]
    assert_cut(masked, masked._renderer, asked)
