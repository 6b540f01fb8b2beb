"""One run at a time in one directory."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import RunError

LOCK_FILE = "lock"


class InUse(RunError):
    """Another process holds the lock."""


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds `directory/lock`. Raises `InUse` while another process does; the system frees a dead process's lock."""
    path = directory / LOCK_FILE
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise InUse(
                f"{directory} is in use by {holder}: wait for it, stop it, or start this run elsewhere with --runs DIR"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
        file.truncate(0)
