"""A small vision-language model, pictures and questions to measure with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from selfrefine.build import BuildSpec, build_model

QUESTIONS = (
    "what shape is in the image?", "what color is the shape?", "is there a circle?", "is there a red shape?",
    "is there a triangle in the image?", "does the image contain a rectangle?", "what color is the circle?",
    "what is the blue shape?", "is no teal shape present?", "which shape does the image contain?",
    "is there not a black shape?", "what is the color of the triangle?", "is a green shape present?",
    "does the image not contain a circle?", "what is the gray shape?", "is there a yellow shape in the image?",
)  # fmt: skip
TARGETS = ("circle", "red", "yes", "no", "a green triangle", "a blue rectangle")


def build(directory: Path, *, hidden_size: int = 128, layers: int = 4) -> Path:
    """A model with random weights. The defaults are the quickstart's sizes."""
    checkpoint = directory / f"model-{hidden_size}-{layers}"
    spec = BuildSpec(hidden_size=hidden_size, layers=layers, heads=hidden_size // 32, kv_heads=2)
    build_model(spec, [*QUESTIONS, *TARGETS], checkpoint, seed=0)
    return checkpoint


def pictures(directory: Path, count: int, side: int = 64) -> list[str]:
    """Paths of `count` pictures of noise: no two share a block of a prefix cache."""
    folder = directory / "pictures"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    paths = [str(folder / f"{number}.png") for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
    return paths
