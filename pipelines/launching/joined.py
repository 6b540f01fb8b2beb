"""A run under a launcher that somebody else has started: one process drives, the others wait until a training begins.

The first process brings the stages up to date as ever. For each training every process of the launcher starts a worker,
so that nothing of a training, memory of a GPU included, stays behind in the drivers. They hear of it through a store of
torch at the address that the launcher gives; the workers meet at a port of their own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from engines.child import cores, threads
from pipelines.context import StageContext
from pipelines.errors import Interrupted, RunError
from pipelines.launching.checks import has_gpu_of_its_own, too_few_gpus
from pipelines.launching.command import DRIVEN, WORKER, imports, of_training
from pipelines.launching.driver import start, watch
from pipelines.launching.exchange import Exchange
from pipelines.launching.ranks import Ranks
from pipelines.launching.settings import LaunchSettings
from pipelines.progress import Progress
from pipelines.terminal import EXIT_INTERRUPTED, EXIT_MISTAKE
from pipelines.training import SAVES

_NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_EVERY = 0.5
"""Seconds between two looks into the store."""
_SIGN_OF_LIFE = 5.0
"""Seconds between two signs of life of the first process."""
_LAG = 3.0
"""Seconds after which the first process knows that another failed."""
_FAREWELL = 10.0
"""Seconds that the first process waits for the others to hear that it leaves."""
_SHARED_WITHIN = 30.0
"""Seconds that a network file system may take to show what another machine wrote."""


class Lead:
    """The first process, for the others. Made once in a run."""

    def __init__(self, ranks: Ranks, store: Any) -> None:
        self._ranks, self._store, self._said = ranks, store, 0

    def train(self, context: StageContext, bar: Progress, settings: LaunchSettings, root: Path, name: str) -> None:
        """As `Launched`: trains the stage `name` of the run in `root` in the processes that are there."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        exchange = Exchange(context.directory / SAVES)
        work = {"root": str(root.resolve()), "name": name, "port": port, "mark": exchange.begin()}
        work |= {"timeout": settings.timeout, "environment": of_training(settings)}
        self.say(work)
        arguments, environment = _worker(self._ranks, work)
        watch(context, bar, exchange, arguments, environment, "process 0", self._ranks.world, self._trouble, _LAG)

    def wait(self, seconds: float) -> None:
        """Tells the others how long to wait for a sign of life, until a training says otherwise."""
        self._store.set("timeout", str(seconds))

    def _trouble(self) -> str | None:
        return str(self._store.get("trouble").decode()) if self._store.check(["trouble"]) else None

    def say(self, work: Mapping[str, Any]) -> None:
        """Tells the others what comes next."""
        self._store.set(f"work/{self._said}", json.dumps(work))
        self._said += 1


@contextmanager
def leading(ranks: Ranks | None) -> Iterator[Lead | None]:
    """Tells the other processes that this one is there, and at the end that it is over. None: there are no others."""
    if ranks is None:
        yield None
        return
    store = _store(ranks)
    over = threading.Event()

    def live() -> None:
        number = 0
        while not over.wait(_SIGN_OF_LIFE if number else 0):
            number += 1
            store.set("alive", str(number))

    threading.Thread(target=live, daemon=True).start()
    lead, code = Lead(ranks, store), EXIT_MISTAKE
    try:
        yield lead
        code = 0
    except Interrupted:
        code = EXIT_INTERRUPTED
        raise
    finally:
        over.set()
        lead.say({"over": code})
        # The store may live in this process, and the others have to read that first.
        until = time.monotonic() + _FAREWELL
        while store.add("left", 0) < ranks.world - 1 and time.monotonic() < until:
            time.sleep(_EVERY / 10)


def follow(ranks: Ranks) -> int:
    """Takes part in the trainings of a run that another process drives; returns the exit code.

    Raises `RunError` where the first process gives no sign of life for `launch.timeout` seconds.
    """
    from torch.distributed import DistNetworkError

    store = _store(ranks)
    timeout, heard, sign, number = LaunchSettings().timeout, time.monotonic(), b"", 0

    def next_work() -> dict[str, Any] | None:
        nonlocal heard, sign, number, timeout
        if store.check([f"work/{number}"]):
            number += 1
            return dict(json.loads(store.get(f"work/{number - 1}")))
        if number == 0 and store.check(["timeout"]):
            timeout = float(store.get("timeout"))
        if store.check(["alive"]) and (now := store.get("alive")) != sign:
            sign, heard = now, time.monotonic()
        if time.monotonic() - heard > timeout:
            raise RunError(
                f"process {ranks.rank} on {socket.gethostname()} heard nothing of the first process for {timeout:g} "
                "seconds (launch.timeout); start the run again"
            )
        return None

    try:
        work = None
        while True:
            while work is None:
                time.sleep(_EVERY)
                work = next_work()
            if "over" in work:
                store.add("left", 1)
                return int(work["over"])
            timeout = work["timeout"]
            if line := _not_shared(ranks, work) or too_few_gpus(ranks.local_world, ranks):
                store.set("trouble", line)
                work = None
            else:
                work = _take_part(ranks, work, next_work)
    except DistNetworkError:
        raise RunError(f"process {ranks.rank} on {socket.gethostname()}: the first process is gone") from None


def _not_shared(ranks: Ranks, work: Mapping[str, Any]) -> str | None:
    exchange, until = _exchange(work), time.monotonic() + _SHARED_WITHIN
    while not exchange.sees(work["mark"]):
        if time.monotonic() > until:
            return (
                f"process {ranks.rank} on {socket.gethostname()} does not see in {work['root']} what the first one "
                "wrote; name a folder that all machines share with --runs DIR"
            )
        time.sleep(_EVERY / 10)
    return None


def _take_part(
    ranks: Ranks, work: Mapping[str, Any], next_work: Callable[[], dict[str, Any] | None]
) -> dict[str, Any] | None:
    """Trains until the worker ends; returns what is to be done next, if that was said before."""
    exchange, said = _exchange(work), None
    arguments, environment = _worker(ranks, work)
    log = exchange.log_of(ranks.rank)
    with log.open("wb") as file, start(arguments, environment, file) as child:
        while child.poll() is None and said is None:
            time.sleep(_EVERY)
            said = next_work()
        assert child.stdin
        child.stdin.close()
    if child.returncode != 0 and said is None:
        exchange.fail_for(ranks.rank, ranks.world, child.returncode)
    return said


def _exchange(work: Mapping[str, Any]) -> Exchange:
    return Exchange(Path(work["root"]) / work["name"] / SAVES)


def _threads(ranks: Ranks) -> dict[str, str]:
    """Where Slurm says how many cores this process has, those; else its share of the cores."""
    own = os.environ.get("SLURM_CPUS_PER_TASK") if ranks.launcher == "Slurm" else None
    return threads(1, min(int(own), cores())) if own else threads(ranks.local_world)


def _worker(ranks: Ranks, work: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The command of one process of a training, and its environment."""
    # Libraries take the device of that number.
    local_rank = 0 if has_gpu_of_its_own(ranks) else ranks.local_rank
    environment = {
        **os.environ,
        **_threads(ranks),
        **imports(),
        **work["environment"],
        **dict(zip(_NAMES, map(str, (ranks.rank, ranks.world, local_rank, ranks.local_world)), strict=True)),
        "MASTER_ADDR": ranks.address,
        "MASTER_PORT": str(work["port"]),
        "TORCHELASTIC_USE_AGENT_STORE": "False",  # its first process keeps a store at that port itself
        DRIVEN: "1",
    }
    return [sys.executable, "-m", WORKER, work["root"], work["name"]], environment


def _store(ranks: Ranks) -> Any:
    """The store that all processes of the launcher share; from then on this one looks to libraries like one alone."""
    from torch.distributed import DistNetworkError, DistStoreError
    from torch.distributed.rendezvous import rendezvous

    os.environ.update(dict(zip(_NAMES, map(str, (ranks.rank, ranks.world)), strict=False)))
    timeout = LaunchSettings().timeout
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=timeout)))
    except (DistNetworkError, DistStoreError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise RunError(
            f"process {ranks.rank} of {ranks.world} could not meet the others at {ranks.address}:{ranks.port} within "
            f"{timeout:g} seconds ({said}); are all of them running, and is MASTER_ADDR the host of the first?"
        ) from None
    for name in _NAMES:
        os.environ.pop(name, None)
    return store
