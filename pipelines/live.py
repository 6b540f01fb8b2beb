"""What a run does at this moment, read from its folder alone: `live.json`, the end of `metrics.jsonl`, manifests."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.heartbeat import LIVE_FILE, TRAINING, WINDOW
from pipelines.manifest import MANIFEST_FILE, finished_stages
from pipelines.metrics import METRICS_FILE
from pipelines.process import is_alive

SILENCE = 60.0
"""Seconds without a beat after which a run no longer counts as one at work."""
_TAIL = 1 << 17
"""Bytes of `metrics.jsonl` that are read, from its end: some hundred steps."""

State = Literal["running", "silent", "stopped", "none"]


@dataclass(frozen=True, slots=True)
class StageState:
    """One stage of a run. `seconds` and `rows` (that came out) are of a finished one."""

    name: str
    state: Literal["finished", "running", "stopped", "waiting"]
    seconds: float | None = None
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What the stage at work has done. `unit`: rows, or the steps of a training. `left`: seconds to its end."""

    what: str
    unit: Literal["rows", "steps"]
    done: int
    total: int
    per_second: float | None
    left: float | None


@dataclass(frozen=True, slots=True)
class LiveView:
    """A run as it stands. None, or empty, is what is not known.

    `state`: `running`; `silent`, when its process has said nothing for a while (hung, or on a machine that is gone);
    `stopped`, which `why` and `command` (in `folder`, to go on) explain; `none`, when no process is at work on it.
    `numbers` are the last ones that the stage logged. `memory` and `gpus` are in MiB. `workers`: (alive, all).
    """

    run: str
    state: State
    stages: Sequence[StageState] = ()
    stage: str | None = None
    work: Work | None = None
    tokens_per_second: float | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    workers: tuple[int, int] | None = None
    memory: Mapping[str, int] = field(default_factory=dict)
    gpus: Sequence[Mapping[str, int]] = ()
    age: float | None = None
    """Seconds since the last sign of life."""
    place: str | None = None
    why: str | None = None
    command: str | None = None
    folder: str | None = None


def read_live(directory: Path, now: float | None = None) -> LiveView:
    """The live view of a run's directory at `now` (seconds since 1970; the clock's unless given)."""
    now = time.time() if now is None else now
    name = directory.resolve().name
    said = _said(directory)
    if said is None:
        return LiveView(name, "none", [_finished(directory, each) for each in _manifests(directory)])
    state, why = _state(said, now)
    stage = said.get("stage")
    rows = _logged(directory, str(stage), float(said.get("began", 0))) if stage else []
    moment = now if state == "running" else None
    work = _training(rows, moment) or _counted(said, moment)
    workers = said.get("workers")
    return LiveView(
        run=name,
        state=state,
        stages=_stages(directory, said, "running" if state == "running" else "stopped"),
        stage=stage,
        work=work,
        tokens_per_second=_token_rate(rows) if rows else said.get("tokens_per_second"),
        numbers=_numbers(rows[-1]) if rows else {},
        workers=None if workers is None else (int(workers["alive"]), int(workers["of"])),
        memory=said.get("memory", {}),
        gpus=said.get("gpus", []),
        age=max(0.0, now - float(said["time"])),
        place=f"process {said['process']} on {said['host']}",
        why=why,
        command=said.get("command"),
        folder=said.get("folder"),
    )


def _said(directory: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((directory / LIVE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):  # Not there, or cut off by a machine that went down: it says nothing.
        return None


def _state(said: Mapping[str, Any], now: float) -> tuple[State, str | None]:
    if ended := said.get("ended"):
        return "stopped", f"{ended['how']}: {ended['why']}"
    if said["host"] == socket.gethostname() and not is_alive(int(said["process"]), float(said["born"])):
        return "stopped", "its process ended without a word: killed, or out of memory"
    if now - float(said["time"]) > SILENCE:
        return "silent", "its process has not been heard of lately: it hangs, its machine is gone, or this is a copy"
    return "running", None


def _stages(directory: Path, said: Mapping[str, Any], at_work: Literal["running", "stopped"]) -> list[StageState]:
    due, current = set(said["due"]), said.get("stage")
    found = []
    for name in said["stages"]:
        if name == current:
            found.append(StageState(name, at_work))
        elif name in due or not (directory / name / MANIFEST_FILE).is_file():
            found.append(StageState(name, "waiting"))
        else:
            found.append(_finished(directory, name))
    return found


def _manifests(directory: Path) -> list[str]:
    found = sorted(finished_stages(directory), key=lambda stage: (stage / MANIFEST_FILE).stat().st_mtime)
    return [str(stage.relative_to(directory)) for stage in found]


def _finished(directory: Path, name: str) -> StageState:
    manifest = json.loads((directory / name / MANIFEST_FILE).read_text(encoding="utf-8"))
    return StageState(name, "finished", manifest.get("seconds"), manifest.get("rows_out"))


def _logged(directory: Path, stage: str, since: float) -> list[dict[str, Any]]:
    """The last records with a step that the stage logged in this attempt."""
    seed, _, plain = stage.rpartition("/")  # The runs of several seeds keep their own records.
    try:
        with (directory / seed / METRICS_FILE).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    # The first may be cut by where reading began, the last one by the writer.
    whole = [json.loads(line) for line in (lines[1:-1] if size > _TAIL else lines[:-1])]
    return [row for row in whole if row["stage"] == plain and row["time"] >= since and "steps" in row]


def _training(rows: Sequence[Mapping[str, Any]], now: float | None) -> Work | None:
    if not rows:
        return None
    last, rate = rows[-1], None
    first = _first(rows)
    if last["time"] > first["time"]:
        rate = (last["step"] - first["step"]) / (last["time"] - first["time"])
    left = _left(last["steps"] - last["step"], rate, None if now is None else now - last["time"])
    return Work(TRAINING, "steps", last["step"], last["steps"], rate, left)


def _counted(said: Mapping[str, Any], now: float | None) -> Work | None:
    if "done" not in said:
        return None
    rate = said["rows_per_second"]
    left = _left(said["total"] - said["done"], rate, None if now is None else now - said["time"])
    return Work(said["what"], "steps" if said["what"] == TRAINING else "rows", said["done"], said["total"], rate, left)


def _left(count: int, rate: float | None, since: float | None) -> float | None:
    """Seconds until `count` more are done, `since` seconds after the rate was taken; None where nothing is at work."""
    return None if since is None or not rate else max(0.0, count / rate - since)


def _token_rate(rows: Sequence[Mapping[str, Any]]) -> float | None:
    first, last = _first(rows), rows[-1]
    counts = [row["tokens"] for row in rows if row["time"] > first["time"] and "tokens" in row]
    return sum(counts) / (last["time"] - first["time"]) if counts else None


def _first(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first of the rows that a rate is taken over: the newest that is older than the window, else the oldest."""
    start = rows[-1]["time"] - WINDOW
    return next((row for row in reversed(rows) if row["time"] < start), rows[0])


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    hidden = ("stage", "time", "step", "steps", "tokens")
    numbers = {key: value for key, value in row.items() if key not in hidden and isinstance(value, int | float)}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}
