"""The command that starts the processes of a training, and the environment they get."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from math import ceil
from pathlib import Path

from engines.child import import_path, threads
from pipelines.launching.config_file import by_accelerate
from pipelines.launching.settings import LaunchSettings, Strategy
from selfrefine import zero
from selfrefine.sharding import FSDP
from selfrefine.training import TIMEOUT

WORKER = "pipelines.launching.worker"
WORLD = "TRIVIUM_PROCESSES"
"""How many processes the driver asked for: a launcher may start fewer and say nothing."""
DRIVEN = "TRIVIUM_DRIVEN"
"""Says that the standard input is a pipe whose other end the driver holds as long as it lives."""


def command(settings: LaunchSettings, root: Path, name: str) -> list[str]:
    """What starts all processes that train the stage `name` of the run in `root`, on this machine."""
    count = str(settings.processes)
    if settings.config is not None and by_accelerate(settings):
        launcher = ["accelerate.commands.launch", "--config_file", settings.config, "--num_processes", count, "-m"]
    else:
        # Without an address torchrun asks for the machine's full name, which is not always one that resolves.
        here = ["--standalone", "--local-addr", "127.0.0.1"]
        launcher = ["torch.distributed.run", *here, "--nproc-per-node", count, "-m"]
    return [sys.executable, "-m", *launcher, WORKER, str(root), name]


def shown(settings: LaunchSettings, root: Path, name: str) -> str:
    """The command as it can be put to a shell."""
    return shlex.join(command(settings, root, name))


def environment(settings: LaunchSettings) -> dict[str, str]:
    """The driver's own environment, and what the processes need beside."""
    return {
        **os.environ,
        **threads(settings.processes),  # torchrun would give each process one
        **imports(),
        **of_training(settings),
        WORLD: str(settings.world),
        DRIVEN: "1",
    }


def of_training(settings: LaunchSettings) -> dict[str, str]:
    """What each process of a training reads of a `launch:` block."""
    return {**_of_strategy(settings.strategy, settings.config), TIMEOUT: str(ceil(settings.timeout))}


def _of_strategy(strategy: Strategy, config: str | None) -> Mapping[str, str]:
    """What accelerate reads to share a model out, by DeepSpeed with the file `config` where there is one."""
    if strategy == "fsdp":
        return FSDP
    if strategy == "ddp":
        return {}
    return {zero.USE: "true"} | ({} if config is None else {zero.FILE: str(Path(config).resolve())})


def imports() -> dict[str, str]:
    """Lets `python -m` find the code that the driver runs, and not a folder `eval` or `tasks` of the user's."""
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": import_path()}
