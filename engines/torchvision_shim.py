"""Lets `import torchvision` succeed where a CUDA build of it sits beside a CPU build of torch.

The CUDA build's extension cannot load without CUDA libraries. That alone is harmless, as the image transforms are
plain torch; but torchvision then describes two operators (`nms`, `qnms`) that were never defined, and fails.
Defining them first is enough. They stay without an implementation: calling one is an error.

`engines.cpu_stack` copies this file into site-packages beside a `.pth` line that calls `install`, so that every
process of the environment is covered, a worker's child included. It needs the standard library alone.
"""

from __future__ import annotations

import importlib.machinery
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_keep: list[Any] = []  # operators live as long as the torch.library.Library that defined them


def is_cuda_build(package: Path) -> bool:
    """Whether the torchvision in the folder `package` was built for CUDA: its `version.py` says `X.Y.Z+cuNNN`."""
    try:
        text = (package / "version.py").read_text(encoding="utf-8")
    except OSError:
        return False
    return re.search(r"__version__ = ['\"][^'\"]*\+cu\d", text) is not None


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        import torch

        if torch.version.cuda is None:
            library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for name in ("nms", "qnms"):
                schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                library.define(schema)  # type: ignore[no-untyped-call]
            _keep.append(library)
        super().exec_module(module)


class _Finder:  # no MetaPathFinder: importlib.abc costs every start of Python 25 ms
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None and is_cuda_build(Path(spec.origin).parent):
            spec.loader = _Loader(fullname, spec.origin)
        return spec


def install() -> None:
    """Covers later imports of torchvision in this process. Nothing happens, torch is not imported, until then.

    A second call changes nothing: Python reads a `.pth` file twice where `lib64` links to `lib`.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
