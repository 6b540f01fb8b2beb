"""A run that is killed, interrupted or starved goes on as if nothing had happened."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.aside import FOLDER

CHILD = Path(__file__).with_name("child.py")
Take = Callable[[Path], dict[str, Any]]


def write_recipe(directory: Path, count: int = 10, arms: bool = True, **grow: Any) -> Path:
    path = directory / "recipe.yaml"
    recipe = {
        "name": "toy",
        "model": {"build": {}},
        "data": {"field": {"task": "easy-vqa"}},
        "stages": [{"kind": "sow", "count": count}, {"kind": "grow", **grow}, {"kind": "tally"}],
        "arms": {"sparse": {"grow.select.every": 5}} if arms else {},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.mark.parametrize("fault", ["kill before", "kill after", "full disk"])
def test_fault_at_every_write(fault: str, children: Any, snapshot: Take, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    recipe = write_recipe(tmp_path, diary=str(diary))
    undisturbed = children.trivium("run", recipe, "--runs", tmp_path / "whole")
    assert undisturbed.code == 0, undisturbed.text
    expected = snapshot(tmp_path / "whole")
    chunks = Counter(diary.read_text().splitlines())
    assert set(chunks.values()) == {1}
    # recipe.yaml; attempt, outputs and manifest of four stages; key, 3 shards and settled metrics of the two that grow.
    assert undisturbed.writes >= 1 + 4 * 3 + 2 * 5

    # A kill before a write finds what one after the write before leaves, and a file half made; a full disk the same.
    for at in range(1, undisturbed.writes + 1, 1 if fault == "kill after" else 3):
        runs = tmp_path / f"{at}"
        diary.unlink()
        struck = children.trivium("run", recipe, "--runs", runs, fault=fault, at=at)
        assert struck.code == (2 if fault == "full disk" else -signal.SIGKILL), (at, struck.text)
        if fault == "full disk":
            assert "the disk is full" in struck.text and "run the same command again" in struck.text
        resumed = children.trivium("run", recipe, "--runs", runs)
        assert resumed.code == 0, (at, resumed.text)
        assert snapshot(runs) == expected, at
        done = Counter(diary.read_text().splitlines())
        assert done.keys() == chunks.keys()
        assert sum(done.values()) <= sum(chunks.values()) + 1, (at, done)


def test_kill_at_every_write_after_a_change(children: Any, snapshot: Take, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    children.trivium("run", recipe, "--runs", tmp_path / "old")
    before = snapshot(tmp_path / "old")
    changed = children.trivium("run", recipe, "stages.grow.factor=4", "--runs", tmp_path / "fresh")
    expected = snapshot(tmp_path / "fresh")
    for at in range(1, changed.writes + 1, 2):
        runs = tmp_path / f"{at}"
        shutil.copytree(tmp_path / "old", runs)
        command = ("run", recipe, "stages.grow.factor=4", "--runs", runs)
        struck = children.trivium(*command, fault="kill before", at=at)
        assert struck.code in (-signal.SIGKILL, 0)
        assert children.trivium(*command).code == 0
        assert snapshot(runs) == expected, at
        # Back, and struck again on the way: what was put aside is whole, or gone.
        back = ("run", recipe, "--runs", runs)
        assert children.trivium(*back, fault="kill after", at=at).code in (-signal.SIGKILL, 0)
        assert children.trivium(*back).code == 0
        assert snapshot(runs) == before, at
        assert not list(runs.rglob(FOLDER))


def test_ctrl_c_finishes_the_batch_then_the_command_goes_on(children: Any, snapshot: Take, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, seconds=0.2)
    child = start("run", recipe, "--runs", tmp_path / "runs")
    first = tmp_path / "runs/toy/grow/measured/000000.jsonl"
    wait_for(first.exists)
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=20)
    assert child.returncode == 130
    assert f"to go on: trivium run {recipe} --runs {tmp_path / 'runs'}" in complaint
    shards = sorted(path.name for path in first.parent.glob("*.jsonl"))
    assert 1 <= len(shards) < 3, "it stopped between two batches"
    assert not (first.parent.parent / "manifest.json").exists()
    otherwise = children.trivium("run", recipe, "stages.grow.seconds=0.1", "--runs", tmp_path / "runs", "--plan").text
    assert "interrupted, and since then changed: seconds 0.2 -> 0.1" in " ".join(otherwise.split()), otherwise
    resumed = children.trivium("run", recipe, "--runs", tmp_path / "runs")
    assert resumed.code == 0 and "grow: goes on after an interruption" in resumed.text
    children.trivium("run", recipe, "--runs", tmp_path / "whole")
    assert snapshot(tmp_path / "runs") == snapshot(tmp_path / "whole")


def test_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    child = start("run", write_recipe(tmp_path, seconds=60), "--runs", tmp_path / "runs")
    wait_for((tmp_path / "runs/toy/grow/measured/key.json").exists)
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    asked = time.monotonic()
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=10) == -signal.SIGINT
    assert time.monotonic() - asked < 5


def test_ctrl_c_while_puzzles_are_made_stops_at_once(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    data = {"labelled": {"task": "sudoku", "side": 9, "level": "extreme", "size": 10_000}}  # hours
    path.write_text(yaml.safe_dump({"name": "toy", "data": data, "stages": [{"kind": "recur"}]}))
    child = start("run", path, "--runs", tmp_path / "runs")
    assert child.stderr is not None
    said = [child.stderr.readline()]
    while "reading data `labelled`" not in said[-1]:
        said.append(child.stderr.readline())
        assert said[-1], said
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "stopped: while reading data `labelled`; to go on:" in complaint


def test_two_runs_on_one_directory(children: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, seconds=60)
    child = start("run", recipe, "--runs", tmp_path / "runs")
    wait_for((tmp_path / "runs/toy/grow/measured/key.json").exists)
    refused = children.trivium("run", recipe, "--runs", tmp_path / "runs")
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert refused.code == 2
    assert f"process {child.pid}" in refused.text
    for way_out in ("wait for it", "stop it", "--runs DIR"):
        assert way_out in refused.text
    planned = children.trivium("run", recipe, "--runs", tmp_path / "runs", "--plan")
    assert planned.code == 0
    freed = children.trivium("run", recipe, "stages.grow.seconds=0", "--runs", tmp_path / "runs")
    assert freed.code == 0, "a dead process holds no lock"


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(CHILD), "trivium", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    recipe = write_recipe(tmp_path, seconds=0.1)
    command = [sys.executable, str(CHILD), "trivium", "run", str(recipe), "--runs", str(tmp_path / "runs")]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=follower, env={**os.environ, "TERM": "xterm"})
    os.close(follower)
    seen = b""
    while True:
        try:
            block = os.read(leader, 1 << 16)
        except OSError:  # How Linux says that nobody holds the other end any more.
            break
        seen += block
    assert child.wait() == 0
    assert b"growing" in seen and b"\x1b[?25l" in seen and b"4/10" in seen
