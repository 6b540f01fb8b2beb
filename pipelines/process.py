"""Which process it is: the system gives the number of one that has ended to others."""

from __future__ import annotations


def born(process: int) -> float:
    """When a process began: with its number, which the system gives again to others, this is its identity."""
    import psutil

    return float(psutil.Process(process).create_time())


def is_alive(process: int, since: float) -> bool:
    """Whether the process of this machine that began then (`born`) is at work."""
    import psutil

    try:
        found = psutil.Process(process)
        return bool(abs(found.create_time() - since) < 1 and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
