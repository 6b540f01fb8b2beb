"""The driver's side of a training in several processes: starts them, watches them, says how they ended."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from pipelines.context import StageContext
from pipelines.errors import Interrupted, RunError
from pipelines.launching.command import command, environment
from pipelines.launching.exchange import Exchange, was_killed
from pipelines.launching.settings import LaunchSettings
from pipelines.metrics import Metrics
from pipelines.progress import Progress
from pipelines.training import CHECKPOINT, NUMBERS_FILE, SAVES
from selfrefine.training import last_save, step_of

_EVERY = 0.1
"""Seconds between two looks at what the processes did."""
_PATIENCE = 30.0
"""Seconds that processes have to leave by themselves after one has failed."""
_SIGNALLED = re.compile(r"rank\s+: (\d+) \(local_rank: \d+\)\s+exitcode\s+: -(\d+)")
"""How torchrun reports a process that left no word of its own."""
_ERROR = re.compile(r"^(?:\[\w+\]: ?)?([\w.]*(?:Error|Exception)\b.*)$", re.MULTILINE)
_MISSES_ANOTHER = "by peer"
"""What gloo and NCCL say of a connection that the other side has closed or reset."""
_OF_THE_LAUNCHER = ("ChildFailedError", "CalledProcessError")


class Launched:
    """A launcher that starts processes on this machine, for one training of the stage `name` of the run in `root`."""

    def __init__(self, settings: LaunchSettings, root: Path, name: str) -> None:
        self._settings, self._root, self._name = settings, root, name

    def __call__(self, context: StageContext, bar: Progress) -> None:
        """Returns when the checkpoint is there. Raises `Interrupted`, or `RunError` with why a process ended."""
        exchange = Exchange(context.directory / SAVES)
        exchange.begin()
        arguments = command(self._settings, self._root, self._name)
        watch(context, bar, exchange, arguments, environment(self._settings), "the launcher", self._settings.world)


def watch(
    context: StageContext,
    bar: Progress,
    exchange: Exchange,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    what: str,
    world: int,
    trouble: Callable[[], str | None] = lambda: None,
    lag: float = 0.0,
) -> None:
    """Starts a command and waits for the checkpoint.

    `what` the command is, to the user. Of processes elsewhere `trouble` gives a line where they cannot take part, and
    `lag` says how many seconds pass until it is known that they failed.

    Raises `Interrupted`, or `RunError` with why a process ended.
    """
    steps = Followed(context.metrics, context.name)
    with exchange.log.open("wb") as log, start(arguments, environment, log) as child:
        try:
            running, failed = True, None
            while running:
                running = child.poll() is None
                if context.stop.requested:
                    exchange.ask_to_stop()
                if taken := steps.more():
                    bar.advance(taken)
                time.sleep(_EVERY if running else 0)
                failed = failed or (time.monotonic() if exchange.failure() or trouble() else None)
                if running and failed and time.monotonic() - failed > _PATIENCE:
                    break  # It may wait for the process that failed.
        finally:
            assert child.stdin
            child.stdin.close()  # by which processes know that nobody waits for them, if any is left
    if (where := exchange.stopped()) is not None:
        raise Interrupted(where)
    if child.returncode != 0 or not (context.directory / CHECKPOINT / NUMBERS_FILE).is_file():
        time.sleep(lag)
        line = trouble() or why(exchange, what, child.returncode, world)
        raise RunError(line + _to_go_on(context.directory / SAVES))


def start(arguments: Sequence[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process whose standard input ends when this one does, and which Ctrl-C does not reach."""
    return subprocess.Popen(
        arguments,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def why(exchange: Exchange, what: str, code: int, world: int) -> str:
    """In one line, why the processes ended without a checkpoint."""
    text = exchange.log.read_text(encoding="utf-8", errors="replace")
    # The launcher itself ends the others by SIGTERM. Those that miss a killed one may fail before it is noticed.
    killed = [(int(rank), int(number)) for rank, number in _SIGNALLED.findall(text) if int(number) != signal.SIGTERM]
    if killed:
        rank, number = killed[0]
        return was_killed(rank, world, number)
    if (failure := exchange.failure()) is not None:
        silent = exchange.silent(world)
        if len(silent) == 1 and _MISSES_ANOTHER in failure.line:
            # The launcher saw the other fail first, and has ended this one as well before it looked at it.
            return f"process {silent[0]} of {world} left without a word, as one does that is killed: {failure.line}"
        return failure.line
    errors = [line for line in _ERROR.findall(text) if not any(each in line for each in _OF_THE_LAUNCHER)]
    said = f": {errors[-1]}" if errors else ""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}{said}"
    return f"{what} {how}; see {exchange.log}"


def _to_go_on(saves: Path) -> str:
    save = last_save(saves)
    return f"; the same command goes on from step {step_of(save)}" if save else ""


class Followed:
    """Reads in the run's metrics how many steps the processes have taken."""

    def __init__(self, metrics: Metrics, stage: str) -> None:
        metrics.mend()
        self._path, self._stage, self._step = metrics.path, stage, 0
        self._read = metrics.path.stat().st_size if metrics.path.exists() else 0

    def more(self) -> int:
        """Steps since the last call."""
        before = self._step
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")
            self._read += len(whole + newline)
            for line in whole.splitlines():
                record = json.loads(line)
                if record["stage"] == self._stage:
                    self._step = max(self._step, int(record.get("step", 0)))
        return self._step - before
