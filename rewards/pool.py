"""Workers that can be killed, for verification that may never end.

A thread cannot be stopped while sympy raises one integer to another, and a signal is not delivered until it is done. So
each call runs in another process, which is killed when its time is over; another takes its place.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import current_process
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from rewards.contract import RewardError

SECONDS = 5.0
"""For one call, in a worker that is warm. On the clock: beside a training, half a second of work may take three."""
MEMORY = 2 << 30
"""Bytes of address space of a worker beyond what it has when it starts."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`value` of a call that came back, else the `reason` why there is none: `timeout`, `died` or `error`."""

    value: Any = None
    reason: str | None = None


class Pool:
    """Worker processes that import `warm` when they start, so that no call waits for it.

    They see no GPU and start anew after a call that took too long or too much memory: none is lost for good.
    """

    def __init__(self, workers: int | None = None, warm: Sequence[str] = (), memory: int = MEMORY) -> None:
        if current_process().daemon:
            raise RewardError("verification needs processes of its own, which a daemonic process may not start")
        self._lock = threading.Lock()
        context = _Context()
        context.set_forkserver_preload(list(warm))
        self._pool = ProcessPool(
            max_workers=workers or min(8, os.cpu_count() or 1),
            initializer=_begin,
            initargs=(tuple(warm), memory),
            context=context,
        )

    def map(
        self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], seconds: float = SECONDS
    ) -> list[Verdict]:
        """`function(*call)` of each call, in order. Each has `seconds` from when a worker takes it up."""
        with self._lock:
            futures = [self._pool.schedule(function, args=call, timeout=seconds) for call in calls]
        return [_verdict(future) for future in futures]

    def close(self) -> None:
        """Stops the workers, whatever they do."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join(timeout=5)


class _Worker(ForkServerProcess):
    """A process that does not import the main module of its parent.

    It would gain nothing from it, and lose much: a training script takes long to import, for each worker that is
    replaced, and one without `if __name__ == "__main__"` would train once more in every worker.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _main_hidden():
            return ForkServerProcess._Popen(process_obj)


class _Context(ForkServerContext):
    Process = _Worker


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Where multiprocessing looks for the main module, there is none. It has no setting for this."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__spec__", "__file__") if hasattr(main, name)}
    for name in kept:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


_shared: dict[str, Pool] = {}


def shared(warm: str) -> Pool:
    """The pool of this process whose workers have imported the module `warm`; closed when the process ends."""
    if warm not in _shared:
        _shared[warm] = Pool(warm=(warm,))
    return _shared[warm]


@atexit.register
def close_shared() -> None:
    """Closes all shared pools. A process that ends without its exit handlers, as a worker does, calls it itself."""
    while _shared:
        _shared.popitem()[1].close()


def _begin(warm: Sequence[str], memory: int) -> None:
    import importlib
    import resource

    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for module in warm:
        importlib.import_module(module)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, hard))


def _verdict(future: ProcessFuture[Any]) -> Verdict:
    try:
        return Verdict(future.result())
    except Late:
        return Verdict(reason="timeout")
    except (ProcessExpired, MemoryError):
        return Verdict(reason="died")
    except Exception:
        return Verdict(reason="error")
