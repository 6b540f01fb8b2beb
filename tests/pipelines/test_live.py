"""What a run at work says of itself, and what is read from its folder: by whom, how far, how fast, and how it ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.base import Generation, Request, Score, ScoreRequest
from pipelines import heartbeat, process
from pipelines.heartbeat import LIVE_FILE, WINDOW, Heartbeat, Rate
from pipelines.live import SILENCE, read_live
from pipelines.live_text import live_lines
from pipelines.machine import gpus_in_use
from pipelines.metrics import METRICS_FILE
from tests.pipelines.test_survival import CHILD, wait_for, write_recipe

NOBODY = SimpleNamespace(advance=lambda count=1: None, skip=lambda count: None)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(heartbeat.time, "monotonic", made.monotonic)
    return made


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), "trivium", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("heap", "gap"), [(1, 0.1), (64, 45.0), (256, 2000.0)])
def test_a_rate_is_that_of_late_whether_things_come_singly_or_in_heaps(clock: Clock, heap: int, gap: float) -> None:
    rate = Rate()
    assert rate.value() is None
    for slow in (3, 1):  # At first three times as slow: that is forgotten.
        for _ in range(int(2 * WINDOW / gap) + 4):
            clock.now += slow * gap
            rate.add(heap)
    assert rate.value() == pytest.approx(heap / gap, rel=0.02)
    assert len(rate._points) < WINDOW + 4


def test_what_an_earlier_attempt_did_is_done_but_no_speed(clock: Clock, tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path / LIVE_FILE, ["grow"], ["grow"])
    heart.enter("grow")
    bar = heart.counting(NOBODY, 100, "growing")
    bar.skip(60)
    for _ in range(3):
        clock.now += 10
        bar.advance(5)
    heart._beat()
    work = read_live(tmp_path).work
    assert work is not None and (work.done, work.total, work.unit) == (75, 100, "rows")
    assert work.per_second == pytest.approx(0.5)
    assert work.left == pytest.approx(50, abs=5)


def test_tokens_and_workers_of_an_engine(clock: Clock, tmp_path: Path) -> None:
    class Replicated:
        workers = (3, 4)

        def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
            for request in requests:
                clock.now += 2
                yield Generation(request.id, "text", tuple(range(7)), "stop", 100)

        def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
            clock.now += 2
            yield from (Score(request.id, (-1.0,) * 5) for request in requests)

        def close(self) -> None:
            raise RuntimeError("closed")

    heart = Heartbeat(tmp_path / LIVE_FILE, ["ask"], ["ask"])
    heart.enter("ask")
    engine = heart.counted(Replicated())
    asked = [Request(str(n), []) for n in range(10)]
    assert [each.id for each in engine.generate(asked)] == [each.id for each in asked]
    assert len(list(engine.score([ScoreRequest("a", [], "b")] * 2))) == 2
    heart._beat()
    view = read_live(tmp_path)
    assert view.tokens_per_second == pytest.approx((10 * 7 + 2 * 5) / (10 * 2 + 2), rel=0.02)
    assert view.workers == (3, 4)
    assert "workers: 3 of 4 alive" in live_lines(view)
    with pytest.raises(RuntimeError, match="closed"):
        engine.close()


def write_live(directory: Path, **changes: Any) -> float:
    """A live.json of this process, now at work on `tune`."""
    now = time.time()
    said = {
        "command": "trivium run mine.yaml",
        "folder": "/home/me",
        "process": os.getpid(),
        "born": process.born(os.getpid()),
        "host": socket.gethostname(),
        "stages": ["tune", "evaluate"],
        "due": ["tune", "evaluate"],
        "stage": "tune",
        "began": now - 1000,
        "tokens": 0,
        "tokens_per_second": None,
        "time": now,
    }
    directory.mkdir(exist_ok=True)
    (directory / LIVE_FILE).write_text(json.dumps(said | changes))
    return now


def write_steps(path: Path, stage: str, now: float, steps: Sequence[int], each: float, **more: Any) -> None:
    """One record for each step, `each` seconds apart, the last one now."""
    with path.open("a") as file:
        for number, step in enumerate(steps):
            at = now - each * (len(steps) - 1 - number)
            record = {"stage": stage, "step": step, "steps": 2000, "loss": 1 / step, "time": at, **more}
            file.write(json.dumps(record) + "\n")


def test_a_training_is_read_from_the_end_of_its_records(tmp_path: Path) -> None:
    now = write_live(tmp_path)
    path = tmp_path / METRICS_FILE
    write_steps(path, "other", now - 9000, range(1, 4000), 1.0, tokens=1)
    write_steps(path, "tune", now - 5000, range(1, 501), 0.1, tokens=9999)  # an earlier attempt, before `began`
    write_steps(path, "tune", now, range(501, 601), 0.5, tokens=64)
    path.open("a").write('{"stage": "tune", "step": 601, "st')  # a line that is being written
    view = read_live(tmp_path, now)
    assert view.work is not None
    assert (view.work.done, view.work.total, view.work.unit) == (600, 2000, "steps")
    assert view.work.per_second == pytest.approx(2.0, rel=1e-6)
    assert view.work.left == pytest.approx(700, rel=1e-6)
    assert view.tokens_per_second == pytest.approx(128, rel=1e-6)
    assert view.numbers == {"loss": pytest.approx(1 / 600)}
    later = read_live(tmp_path, now + 30)
    assert later.work is not None and later.work.left == pytest.approx(670)


def test_a_step_that_takes_longer_than_the_window_has_a_speed_too(tmp_path: Path) -> None:
    now = write_live(tmp_path, began=0)
    write_steps(tmp_path / METRICS_FILE, "tune", now, [1, 2, 3], 2 * WINDOW)
    work = read_live(tmp_path, now).work
    assert work is not None and work.per_second == pytest.approx(0.5 / WINDOW)
    assert read_live(tmp_path, now).tokens_per_second is None


def test_a_seed_keeps_its_own_records(tmp_path: Path) -> None:
    now = write_live(tmp_path, stage="seed-1/tune", stages=["seed-1/tune"], due=["seed-1/tune"])
    (tmp_path / "seed-1").mkdir()
    write_steps(tmp_path / "seed-1" / METRICS_FILE, "tune", now, [1, 2, 3], 1.0)
    work = read_live(tmp_path, now).work
    assert work is not None and work.done == 3


def test_who_is_at_work(tmp_path: Path) -> None:
    now = write_live(tmp_path / "a")
    assert read_live(tmp_path / "a", now + 1).state == "running"
    assert read_live(tmp_path / "a", now + SILENCE + 1).state == "silent", "it hangs, or this is a copy"
    write_live(tmp_path / "a", born=process.born(os.getpid()) - 100)
    assert read_live(tmp_path / "a", now).state == "stopped", "another process has the number now"
    write_live(tmp_path / "a", host="elsewhere", process=2**22 + 1)
    assert read_live(tmp_path / "a", now).state == "running", "of another machine only the beats tell"
    assert read_live(tmp_path / "a", now + SILENCE + 1).state == "silent"
    write_live(tmp_path / "a", ended={"how": "failed", "why": "[/red] the disk is full"})
    view = read_live(tmp_path / "a", now)
    assert (view.state, view.why) == ("stopped", "failed: [/red] the disk is full")
    assert "to go on, in /home/me: trivium run mine.yaml" in live_lines(view)
    (tmp_path / "a" / LIVE_FILE).write_text("{")
    assert read_live(tmp_path / "a").state == "none"
    assert live_lines(read_live(tmp_path / "a")) == []


def test_gpus_are_those_that_the_run_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\nfor word; do case $word in --id=*) ids=${word#--id=};; esac; done\n"
        'for id in $(echo ${ids-0,1} | tr , " "); do echo "$id, 100, 81559, 7"; done\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_in_use() == [{"gpu": n, "used": 100, "total": 81559, "busy": 7} for n in (0, 1)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [each["gpu"] for each in gpus_in_use()] == [1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_in_use() == []


def test_a_dead_child_that_nobody_has_fetched_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = process.born(child.pid)
    assert process.is_alive(child.pid, born)
    child.kill()
    wait_for(lambda: not process.is_alive(child.pid, born), seconds=60)
    child.wait()
    assert not process.is_alive(child.pid, born)


def test_a_run_is_watched_killed_and_gone_on_with(children: Any, tmp_path: Path) -> None:
    recipe, root = write_recipe(tmp_path, count=400, arms=False, seconds=0.5), tmp_path / "runs/toy"
    child = start("run", recipe, "--runs", tmp_path / "runs")
    wait_for(lambda: (view := read_live(root)).work is not None and view.work.done >= 8 and view.memory, seconds=60)
    view = read_live(root)
    assert (view.state, view.stage) == ("running", "grow")
    assert view.work is not None and view.work.total == 400 and view.work.per_second
    assert view.memory["run"] > 10 and view.memory["machine_total"] >= view.memory["machine"] > 0
    assert [(each.name, each.state) for each in view.stages] == [
        ("sow", "finished"),
        ("grow", "running"),
        ("tally", "waiting"),
    ]
    shown = children.trivium("runs", "show", "toy", "--runs", tmp_path / "runs")
    assert shown.code == 0 and "running: grow" in shown.text and "left" in shown.text
    assert "still to come: tally" in shown.text
    watching = start("runs", "show", "toy", "--watch", "--runs", tmp_path / "runs")
    shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns(".partial-*"))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert watching.wait(timeout=60) == 0, "it ends with the run"
    assert read_live(tmp_path / "copy", time.time() + 100).state == "stopped", "a copy says so as well"
    stopped = children.trivium("runs", "show", "toy", "--runs", tmp_path / "runs")
    assert "stopped: grow" in stopped.text and "ended without a word" in stopped.text
    assert f"to go on, in {Path.cwd()}: trivium run {recipe} --runs {tmp_path / 'runs'}" in stopped.text
    resumed = children.trivium("run", recipe, "--runs", tmp_path / "runs", "stages.grow.seconds=0")
    assert resumed.code == 0, resumed.text
    assert not (root / LIVE_FILE).exists()
    view = read_live(root)
    assert view.state == "none" and [each.state for each in view.stages] == ["finished"] * 3


def test_how_a_run_ended(children: Any, tmp_path: Path) -> None:
    recipe, root = write_recipe(tmp_path, count=400, arms=False, seconds=0.3), tmp_path / "runs/toy"
    child = start("run", recipe, "--runs", tmp_path / "runs")
    wait_for(lambda: (view := read_live(root)).work is not None and view.work.done, seconds=60)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    view = read_live(root)
    assert view.state == "stopped" and view.why is not None and view.why.startswith("interrupted: ")
    full = children.trivium("run", recipe, "--runs", tmp_path / "runs", fault="full disk", at=2)
    assert full.code == 2
    view = read_live(root)
    assert view.state == "stopped" and view.why is not None and "the disk is full" in view.why


def test_a_disk_that_takes_no_heartbeat_stops_nothing(tmp_path: Path) -> None:
    heart = Heartbeat(tmp_path / "nowhere" / LIVE_FILE, ["a"], ["a"])
    with heart.beating():
        heart.enter("a")
        heart.leave("a")
