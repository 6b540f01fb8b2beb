"""What the driver and the processes of a training tell each other, as files in the training's own folder.

Files, because all have that folder, on whatever machine they are and whoever started them; it goes when the training is
over, and after a failure it stays.
"""

from __future__ import annotations

import json
import secrets
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.files import remove, write_json, write_text


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a process ended. `line` says it to the user; `killed`: by a signal, so that others may have failed by it."""

    rank: int
    line: str
    killed: bool
    time: float


class Exchange:
    """One training's folder, seen from either side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop, self._stopped, self._mark = folder / "stop", folder / "stopped", folder / "mark"

    @property
    def log(self) -> Path:
        """All that the processes print which the driver started."""
        return self.log_of(0)

    def log_of(self, rank: int) -> Path:
        """All that the process with this number prints, where each is started by itself."""
        return self._folder / (f"launch-{rank}.log" if rank else "launch.log")

    def begin(self) -> str:
        """Forgets what an earlier attempt said; returns what a process reads here if it sees this folder."""
        self._folder.mkdir(exist_ok=True)
        for path in (self._stop, self._stopped, *self._failures()):
            remove(path)
        mark = secrets.token_hex(8)
        write_text(self._mark, mark)
        return mark

    def sees(self, mark: str) -> bool:
        """Whether this folder is the one in which the driver left `mark`."""
        return self._mark.is_file() and self._mark.read_text(encoding="utf-8") == mark

    def ask_to_stop(self) -> None:
        """Asks the processes to save and leave after the step they are in."""
        self._stop.touch()

    def stop_is_asked(self) -> bool:
        return self._stop.exists()

    def say_stopped(self, where: str) -> None:
        """A process says that the training is saved at `where`."""
        write_text(self._stopped, where)

    def stopped(self) -> str | None:
        """Where the training was saved, if it stopped as asked."""
        return self._stopped.read_text(encoding="utf-8") if self._stopped.exists() else None

    def fail(self, rank: int, line: str, killed: bool = False) -> None:
        """A process says why it leaves."""
        if self._folder.is_dir():
            write_json(self._failure_of(rank), {"line": line, "killed": killed, "time": time.time()})

    def fail_for(self, rank: int, world: int, code: int) -> None:
        """Says why a process ended with this code, unless it has said so itself. A negative one is a signal."""
        if code < 0:
            self.fail(rank, was_killed(rank, world, -code), killed=True)
        elif not self._failure_of(rank).exists():
            self.fail(rank, f"process {rank} of {world} ended with code {code}; see {self.log_of(rank)}")

    def failure(self) -> Failure | None:
        """What went wrong first: a process that was killed, else the one that failed before the others."""
        found = []
        for path in self._failures():
            said = json.loads(path.read_text(encoding="utf-8"))
            found.append(Failure(int(path.stem.rpartition("-")[2]), said["line"], said["killed"], said["time"]))
        return min(found, key=lambda each: (not each.killed, each.time), default=None)

    def silent(self, world: int) -> list[int]:
        """The processes that have not said why they left."""
        return [rank for rank in range(world) if not self._failure_of(rank).exists()]

    def _failure_of(self, rank: int) -> Path:
        return self._folder / f"failed-{rank}.json"

    def _failures(self) -> list[Path]:
        return sorted(self._folder.glob("failed-*.json"))


def was_killed(rank: int, world: int, number: int) -> str:
    """The line on a process that a signal ended."""
    hint = ", as happens where memory runs out" if number == signal.SIGKILL else ""
    return f"process {rank} of {world} was killed by {signal.Signals(number).name}{hint}"
