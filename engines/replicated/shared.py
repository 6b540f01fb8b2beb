"""Files that the driver and all workers have to see under one path: found out where one of them does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.base import EngineError
from engines.rendering import UNREADABLE, open_image

_WAY_OUT = "keep images and checkpoints in a folder that all machines of the cluster share under the same path"


def check_checkpoint_here(checkpoint: str, machine: str) -> None:
    """Raises `EngineError` where a directory of the driver's (those come with their whole path) is not there."""
    if Path(checkpoint).is_absolute() and not Path(checkpoint).exists():
        raise EngineError(f"{checkpoint}: a worker, on machine {machine}, does not see this checkpoint; {_WAY_OUT}")


def check_images(requests: Sequence[Any], results: Sequence[Any], machine: str) -> None:
    """Raises `EngineError` where the worker that gave `results` could not read an image that can be read here.

    An image that is unreadable here too is a fault of the data: the row has its error. One that only some workers do
    not see would lose rows by chance of who was asked.
    """
    looked_at: set[str] = set()
    for request, result in zip(requests, results, strict=True):
        path = request.image
        if path is None or path in looked_at or UNREADABLE not in (result.error or ""):
            continue
        looked_at.add(path)
        try:
            open_image(path)
        except EngineError:
            continue
        raise EngineError(
            f"{path}: the driver reads this image, and a worker, on machine {machine}, cannot; {_WAY_OUT}"
        )
