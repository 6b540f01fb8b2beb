"""Images with noise over a part of them, outside of what the answer needs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.draw import seed64, uniform
from tasks.problem import Problem, TaskError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.float64]
    Mask: TypeAlias = NDArray[np.bool_]

NOISE = (0.25, 0.5, 1.0, 2.0)
"""Standard deviations of severity 1, 2, …, where pixels are from 0 to 1."""
REGION = "region"
_TILES = 8
"""Tiles along the shorter side that the touched area is made of."""


def stress(problem: Problem, scope: float, severity: int, seed: int, folder: Path) -> Problem:
    """The problem with Gaussian noise over the share `scope` of its image's pixels outside of its region.

    The region is what the answer needs: the column `region` of the problem, boxes [left, top, right, bottom] in pixels,
    right and bottom not part of it. A smaller scope touches some of the same tiles, a lower severity adds less of the
    same noise. The image is written to `folder` as PNG, under a name of what it shows. Raises `TaskError` without an
    image or a region, and where the region is all of the image.
    """
    import numpy as np
    from PIL import Image

    if problem.image is None:
        raise TaskError(f"problem `{problem.id}` has no image")
    try:
        with Image.open(problem.image) as image:
            pixels = np.asarray(image.convert("RGB"), np.float64) / 255
    except (OSError, ValueError, SyntaxError) as error:
        raise TaskError(f"{problem.image}: cannot be read as an image ({error})") from None
    free = ~_needed(problem, *pixels.shape[:2])
    if not free.any():
        raise TaskError(f"problem `{problem.id}`: its region is all of the image, so nothing can be touched")
    touched = _touched(free, scope, seed, problem.id)
    generator = np.random.default_rng(seed64("stress noise", seed, problem.id))
    harder = noisy(pixels, touched, NOISE[severity - 1], generator)
    made = np.rint(np.clip(harder, 0, 1) * 255).astype(np.uint8)
    path = folder / f"{hashlib.sha256(made.tobytes()).hexdigest()[:24]}.png"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(made).save(path)
    return replace(problem, image=str(path.resolve()))


def noisy(pixels: Pixels, touched: Mask, deviation: float, generator: np.random.Generator) -> Pixels:
    """`pixels` (H, W) or (H, W, C) with Gaussian noise where `touched` (H, W) says; not cut to 0…1."""
    noise = generator.standard_normal(pixels.shape) * deviation
    return pixels + noise * touched.reshape(touched.shape + (1,) * (pixels.ndim - 2))


def _needed(problem: Problem, height: int, width: int) -> Mask:
    """(height, width): the pixels of the region."""
    import numpy as np

    boxes = problem.columns.get(REGION)
    if not isinstance(boxes, Sequence) or isinstance(boxes, str) or not boxes:
        raise TaskError(
            f"problem `{problem.id}` has no column `{REGION}` with the boxes that its answer needs: without it noise "
            "could hide the answer"
        )
    mask = np.zeros((height, width), bool)
    for box in boxes:
        left, top, right, bottom = _box(box, problem, height, width)
        mask[top:bottom, left:right] = True
    return mask


def _box(box: Any, problem: Problem, height: int, width: int) -> tuple[int, int, int, int]:
    whole = isinstance(box, Sequence) and len(box) == 4 and all(isinstance(each, int) for each in box)
    if whole and 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height:
        return box[0], box[1], box[2], box[3]
    raise TaskError(
        f"problem `{problem.id}`: {box!r} in `{REGION}` is no box [left, top, right, bottom] of whole pixels in an "
        f"image of {width} by {height}"
    )


def _touched(free: Mask, scope: float, seed: int, identity: str) -> Mask:
    """(H, W): `scope` of the free pixels, tile after tile in an order of the seed and the problem."""
    import numpy as np

    height, width = free.shape
    side = max(1, min(height, width) // _TILES)
    rows, columns = np.arange(height) // side, np.arange(width) // side
    across = int(columns[-1]) + 1
    order = [uniform("stress tile", seed, identity, number) for number in range((int(rows[-1]) + 1) * across)]
    rank = np.empty(len(order), np.int64)
    rank[np.argsort(order)] = np.arange(len(order))
    tile = rank[rows[:, None] * across + columns[None, :]]
    places = np.flatnonzero(free)
    places = places[np.argsort(tile.ravel()[places], kind="stable")]
    touched = np.zeros(free.size, bool)
    touched[places[: max(1, round(scope * len(places)))]] = True
    return touched.reshape(free.shape)
