"""A process that makes reasoning-gym's problems: `python -m tasks.gym_source REQUEST` writes one JSON line for each.

In a process of its own because some datasets walk through sets of texts, whose order Python draws anew for each process
unless `PYTHONHASHSEED` is set; and because settings may make a dataset search for ever.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from tasks.draw import seed64
from tasks.gym_entry import packed
from tasks.gym_package import PREFIX

CHUNK = 500
"""Problems of one seed of the package: some datasets draw all of theirs when they are made."""
SECONDS = 120
"""For one problem; the slowest takes a few."""

_SLOW = ("cellpylib", "sympy", "sympy.geometry", "sympy.parsing.sympy_parser", "sympy.polys.monomials")


def main(request: Mapping[str, Any]) -> None:
    """Without a seed checks `settings` and writes nothing; else writes problems until nobody reads them."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a dataset prints is no problem

    def say(**line: Any) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    signal.alarm(SECONDS)
    try:
        for entry, template in _entries(request):
            say(entry=packed(entry), template=template)
            signal.alarm(SECONDS)
    except BrokenPipeError:
        os._exit(0)  # The reader has enough; an orderly end would complain of the lost pipe.
    except Exception as error:
        with contextlib.suppress(BrokenPipeError):
            say(error=" ".join(str(error).split())[:300] or type(error).__name__)


def _entries(request: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], int | str | None]]:
    """Each entry, and the template that it is a copy of with other numbers or colours, where the dataset has such."""
    dataset, settings = request["dataset"], request["settings"]
    seed = request["seed"]
    if seed is None:
        # Settings are compared with each other and with numbers: what takes seconds to import has no part in it.
        sys.modules.update({name: MagicMock() for name in _SLOW})
    make, config = _classes(Path(request["directory"]), request["module"], dataset)
    if seed is None:
        made = config(**settings)
        if hasattr(made, "validate"):
            made.validate()
        return
    chunk = 0
    while True:
        start = seed64(PREFIX, dataset, seed, chunk) % 2**31
        source = make(config(**settings, seed=start, size=CHUNK))
        for number in range(CHUNK):
            random.seed(start + number)  # one dataset draws from the module's own generator
            try:
                entry = source[number]
            except IndexError:  # word ladders run out
                if not number:
                    return
                break
            drawn = getattr(source, "task_indices", None)
            yield entry, drawn[number] if drawn else entry["metadata"].get("task_id")
        chunk += 1


def _classes(directory: Path, module: str, dataset: str) -> tuple[Any, Any]:
    """The dataset's classes, from its module alone: the package's own `__init__` imports all, and takes seconds."""
    parts = module.split(".")
    for depth in (1, 2):
        parent = types.ModuleType(".".join(parts[:depth]))
        parent.__path__ = [str(directory.parent.joinpath(*parts[:depth]))]
        sys.modules[parent.__name__] = parent
    importlib.import_module(f"{parts[0]}.coaching")  # before the factory, which it imports in a circle
    importlib.import_module(module)
    return importlib.import_module(f"{parts[0]}.factory").DATASETS[dataset]  # type: ignore[no-any-return]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
