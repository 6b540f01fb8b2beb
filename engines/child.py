"""What Python processes that this program starts are given by their environment: its own code, and their cores."""

from __future__ import annotations

import os
import site
from pathlib import Path


def import_path() -> str:
    """`PYTHONPATH` for a process that has to run this very code. It is empty where nothing need be said."""
    path = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    root = Path(__file__).resolve().parents[1]
    # A checkout is installed as a link or not at all. Where packages are installed every process looks, but last:
    # put in front, one of them could stand before a module of Python's own.
    if root not in {Path(each).resolve() for each in (*site.getsitepackages(), site.getusersitepackages())}:
        path.insert(0, str(root))
    return os.pathsep.join(path)


def cores() -> int:
    """Processor cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(processes: int, among: int | None = None) -> dict[str, str]:
    """Shares the cores out among so many processes, where nobody has.

    `among`: how many cores; those that this process may use, unless given.
    """
    among = cores() if among is None else among
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, among // processes)))}
