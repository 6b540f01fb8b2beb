"""The real stages on workers: the same results as without, whatever happens to the program on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.recipe import section
from tests.replicated import driver

ROOT = Path(__file__).resolve().parents[2]


def start(runs: Path, **settings: Any) -> subprocess.Popen[str]:
    """The program in a session of its own, as a terminal would start it."""
    return subprocess.Popen(
        [sys.executable, driver.__file__, str(runs), json.dumps(settings)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until_shards(run: subprocess.Popen[str], folder: Path, count: int) -> None:
    end = time.monotonic() + 240
    while len(list(folder.rglob("0*.jsonl"))) < count:
        assert run.poll() is None and time.monotonic() < end, run.communicate()[0] if run.poll() is not None else "late"
        time.sleep(0.02)


def under(pid: int) -> set[int]:
    """Processes started by `pid`, and by those."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            child, after = status.read_text().split(" (", 1)
        except OSError:
            continue
        parents.setdefault(int(after.rpartition(") ")[2].split()[1]), []).append(int(child))
    found, due = set(), [pid]
    while due:
        new = parents.get(due.pop(), [])
        found.update(new)
        due += new
    return found


def works(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::Worker")  # empty of one that has ended
    except OSError:
        return False


def results(runs: Path) -> dict[str, Any]:
    files = {str(path.relative_to(runs)): path.read_bytes() for path in sorted(runs.rglob("*.parquet"))}
    trials = [json.loads(line) for path in runs.rglob("trials.jsonl") for line in path.read_text().splitlines()]
    shards = {
        str(path.relative_to(runs)): [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in path.read_text().splitlines()
        ]
        for path in sorted(runs.rglob("0*.jsonl"))
    }
    return {**files, **shards, "trials": trials}


def test_interrupted_killed_and_resumed_on_other_workers(address: str, tmp_path: Path) -> None:
    assert driver.main(str(tmp_path / "whole"), "{}") == 0
    expected = results(tmp_path / "whole")
    assert len(expected["trials"]) == 120 and len({(t["problem_id"], t["sample"]) for t in expected["trials"]}) == 120

    # Ctrl-C in a terminal goes to the whole session.
    run = start(tmp_path / "run", replicas=2)
    until_shards(run, tmp_path / "run" / "generate", 1)
    os.killpg(run.pid, signal.SIGINT)
    said = run.communicate(timeout=240)[0]
    assert run.returncode in (0, 3), said
    assert "stopping after this batch" in said and "Traceback" not in said

    run = start(tmp_path / "run", replicas=2)
    until_shards(run, tmp_path / "run" / "filter", 2)
    workers = {pid for pid in under(run.pid) if works(pid)}
    assert len(workers) == 2
    while (alive := json.loads((tmp_path / "run/live.json").read_text()).get("workers")) is None:
        time.sleep(0.1)
    assert alive == {"alive": 2, "of": 2}
    run.kill()
    run.wait()
    end = time.monotonic() + 60
    while any(works(pid) for pid in workers):
        assert time.monotonic() < end, "workers outlive the program that was killed"
        time.sleep(0.1)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run" / "filter").rglob("0*.jsonl")}

    run = start(tmp_path / "run", replicas=3, address=address)
    said = run.communicate(timeout=240)[0]
    assert run.returncode == 0, said
    assert results(tmp_path / "run") == expected
    now = {path.name: path.read_bytes() for path in (tmp_path / "run" / "filter").rglob("0*.jsonl")}
    assert kept.items() <= now.items()


def test_workers_are_no_reason_to_run_a_stage_again() -> None:
    plain = section(driver.recipe({}), "engine")
    for settings in ({"replicas": 4}, {"address": "head:6379"}, {"wait_s": 5}):
        assert section(driver.recipe(settings), "engine") == plain
