"""Where an installed package's files are: its data are read, its code is not run."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from tasks.problem import TaskError


@cache
def folder(module: str, package: str, install: str | None = None) -> Path:
    """The folder of the top-level `module`. Raises `TaskError` where `package`, which has it, is not installed.

    `install` is the command that mends that: our extra called like the package unless given.
    """
    spec = importlib.util.find_spec(module)  # of a top-level package: locates it without running its code
    if spec is None or not spec.submodule_search_locations:
        way_out = install or f"pip install 'trivium-reasoning[{package}]'"
        raise TaskError(f"{package} is not installed; {way_out}")
    return Path(spec.submodule_search_locations[0])
