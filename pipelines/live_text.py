"""The live view in words, once or until the run ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.heartbeat import PERIOD
from pipelines.live import LiveView, read_live
from pipelines.progress import SECONDS_BETWEEN_LINES
from pipelines.report.format import duration


def live_lines(view: LiveView) -> list[str]:
    """What the run does, in a few lines; none where no process is at work on it."""
    return [] if view.state == "none" else list(_lines(view))


def watch(directory: Path, say: Callable[[str], None]) -> None:
    """Shows the run until it no longer runs: in place on a terminal, else a line when something is new."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    view = read_live(directory)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as screen:
            while True:
                screen.update(Text("\n".join(live_lines(view))), refresh=True)
                if view.state != "running":
                    return
                time.sleep(PERIOD)
                view = read_live(directory)
    before, said = None, 0.0
    while view.state == "running":
        if view.stage != before or time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            before, said = view.stage, time.monotonic()
            say(" | ".join(live_lines(view)))
        time.sleep(PERIOD)
        view = read_live(directory)
    for line in live_lines(view):
        say(line)


def _lines(view: LiveView) -> Iterator[str]:
    where = view.stage or "between two stages"
    silent = "" if view.state == "running" else f", last heard of {duration(view.age)} ago"
    yield f"{view.state}: {where} ({view.place}{silent})"
    if view.why:
        yield view.why
    if view.work:
        work = view.work
        parts = [f"{work.what} {work.done}/{work.total} {work.unit}"]
        if view.state == "running":
            parts += [f"{work.per_second:.3g} {work.unit}/s"] if work.per_second else []
            parts += [f"{view.tokens_per_second:.0f} tokens/s"] if view.tokens_per_second else []
            parts += [f"{duration(work.left)} left"] if work.left is not None else []
        yield ", ".join(parts)
    if view.numbers:
        yield ", ".join(f"{name} {value:.4g}" for name, value in view.numbers.items())
    if view.workers:
        yield f"workers: {view.workers[0]} of {view.workers[1]} alive"
    if view.state == "running" and view.memory:
        memory = view.memory
        parts = [f"memory: {memory['run']} MiB, machine {memory['machine']} of {memory['machine_total']} MiB"]
        parts += [f"GPU {g['gpu']}: {g['used']} of {g['total']} MiB, {g['busy']} % busy" for g in view.gpus]
        yield "; ".join(parts)
    if waiting := [stage.name for stage in view.stages if stage.state == "waiting"]:
        yield f"still to come: {', '.join(waiting)}"
    if view.state != "running" and view.command:
        yield f"to go on, in {view.folder}: {view.command}"
