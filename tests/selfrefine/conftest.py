"""A model so small that a training takes seconds, and examples with images for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfrefine.build import BuildSpec, build_model
from selfrefine.sft import Example

SYSTEM = {"role": "system", "content": "Look and answer."}
ANSWERS = ("a red circle", "no", "blue, and\nthen 🦊", "Instruction: what? Answer: it")


def spec(architecture: str, **sizes: int) -> BuildSpec:
    small = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300, "max_length": 256}
    seeing = {"vision_hidden_size": 32, "vision_layers": 1, "vision_heads": 2, "image_size": 32}
    return BuildSpec(architecture=architecture, **(small | seeing | sizes))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(architecture: str = "qwen2_5_vl") -> Path:
        if architecture not in made:
            made[architecture] = tmp_path_factory.mktemp(architecture)
            build_model(spec(architecture), ["what is it? a red circle"], made[architecture], seed=0)
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Twelve with an image, four without."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    made = []
    for i in range(16):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        user = {"role": "user", "content": f"what is number {i}?" + " Really?" * (i % 3)}
        turns = [SYSTEM, user] if i % 2 else [user]
        made.append(Example(turns, ANSWERS[i % 4], None if i % 4 == 3 else str(path)))
    return made
