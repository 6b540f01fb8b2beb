"""A tiny vision-language model, images and questions about them, shared by the tests of the engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engines.base import Decoding, Generation, Request, ScoreRequest
from engines.checkpoint import load_model
from selfrefine.build import BuildSpec, build_model

TARGETS = ("red circle", "a blue square", "yes", "no, it is a green triangle")
QUESTIONS = ("what color is the shape?", "which shape is in the image?", "is there a red circle?", "describe it")
# Long enough, in a tokenizer that never saw it, for a prefix cache to keep it and the image behind it.
SYSTEM = "Look closely at the picture, answer in a few words and say nothing else."


def turns(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def stopped(requests: Sequence[Request], made: Sequence[Generation]) -> list[Request]:
    """The requests, three of four with stop strings out of their own completions, within a token or over several."""
    asked = []
    for number, (request, generation) in enumerate(zip(requests, made, strict=True)):
        at, text = 1 + number % 3, generation.text
        stop = (f"{text}!", text[at : at + 1 + number % 4]) if number % 4 and len(text) > at else ()
        asked.append(replace(request, decoding=replace(request.decoding, stop=stop)))
    return asked


@pytest.fixture(scope="session")
def make_vlm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a checkpoint of the named architecture, once each. Head size 32 is the least that vLLM runs on a CPU.

    `lively`: with weights that answer each prompt differently; a fresh model repeats one token, whatever it is shown.
    """
    made: dict[tuple[str, bool, bool], Path] = {}

    def make(architecture: str = "qwen2_5_vl", tied: bool = True, lively: bool = False) -> Path:
        key = (architecture, tied, lively)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(architecture)
            spec = BuildSpec(
                architecture=architecture,
                hidden_size=64,
                layers=2,
                heads=2,
                kv_heads=1,
                vocab_size=400,
                max_length=512,
                tie_word_embeddings=tied,
            )
            build_model(spec, [*QUESTIONS, *TARGETS], made[key], seed=0)
            if lively:
                _disturb(made[key])
        return made[key]

    return make


def _disturb(checkpoint: Path) -> None:
    model = load_model(str(checkpoint))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    model.save_pretrained(checkpoint)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in paths]


@pytest.fixture(scope="session")
def requests_(images: list[str]) -> list[Request]:
    """Questions with the images interleaved, so that an engine that groups them has an order to restore; some blind."""
    return [
        Request(f"r{i}", turns(question), image, Decoding(12))
        for i, (question, image) in enumerate((q, im) for q in QUESTIONS for im in (*images, None))
    ]


@pytest.fixture(scope="session")
def score_requests(images: list[str]) -> list[ScoreRequest]:
    pairs = [(t, im) for t in TARGETS for im in (*images, None)]
    return [ScoreRequest(f"s{i}", turns(QUESTIONS[i % 4]), target, image) for i, (target, image) in enumerate(pairs)]
