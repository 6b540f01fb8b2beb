"""How long the commands take that a person waits for, and whether they import torch on the way."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from statistics import median
from typing import NamedTuple

# What the installed script does, and a word on torch when it is over.
_SCRIPT = (
    "import atexit, sys\n"
    "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
    "sys.argv[0] = 'trivium'\n"
    "from pipelines.cli import main\n"
    "main()\n"
)


class Command(NamedTuple):
    """Medians over fresh processes: seconds on the clock, and seconds of the processor (all that an idle machine
    would show)."""

    wall: float
    processor: float
    imports_torch: bool


def seconds_of(*arguments: str, times: int = 7) -> Command:
    """`trivium ARGUMENTS`, `times` over."""
    walls, processors, torch = [], [], False
    for _ in range(times + 1):
        start, before = time.perf_counter(), _children()
        command = [sys.executable, "-c", _SCRIPT, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        walls.append(time.perf_counter() - start)
        processors.append(_children() - before)
        torch = torch or done.stderr.splitlines()[-1] == "True"
    return Command(median(walls[1:]), median(processors[1:]), torch)  # The first one fills the disk cache.


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
