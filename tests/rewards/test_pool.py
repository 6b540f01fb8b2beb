"""The pool kills what does not end, puts a new worker in its place, and loses no row."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from rewards.pool import Pool, Verdict


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool(workers=2)
    yield made
    made.close()


def tower(base: int, height: int) -> int:
    """In C code that holds the interpreter's lock: no thread and no signal handler could stop it."""
    value = base
    for _ in range(height):
        value = base**value
    return value


def leave(status: int) -> None:
    os._exit(status)


def take(size: int) -> int:
    return len(bytearray(size))


def test_answers_come_in_order_and_errors_are_not_answers(pool: Pool) -> None:
    found = pool.map(divmod, [(7, 2), (1, 0), (9, 4)])
    assert found == [Verdict((3, 1)), Verdict(reason="error"), Verdict((2, 1))]


def test_what_never_ends_is_killed_and_the_interpreter_goes_on(pool: Pool) -> None:
    beats: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            beats.append(time.monotonic())

    thread = threading.Thread(target=beat)
    thread.start()
    began = time.monotonic()
    found = pool.map(tower, [(9, 3), (2, 2)], seconds=1.0)
    stop.set()
    thread.join()
    assert found == [Verdict(reason="timeout"), Verdict(2**4)]
    assert time.monotonic() - began < 20, "a limit of 1 s, on a machine that may be busy"
    assert max(b - a for a, b in pairwise(beats)) < 1.0


def test_workers_that_die_or_ask_for_too_much_memory_are_replaced(pool: Pool) -> None:
    calls = [(leave, (3,)), (take, (64 << 30,)), (divmod, (5, 2))]
    found = [pool.map(function, [call])[0] for function, call in calls]
    assert found == [Verdict(reason="died"), Verdict(reason="died"), Verdict((2, 1))]


def test_after_many_deaths_the_pool_is_whole() -> None:
    small = Pool(workers=2)
    try:
        # Two rows in three kill their worker; a row that is done keeps its answer.
        found = small.map(either, [(number,) for number in range(24)])
        assert [verdict.value for verdict in found] == [n if n % 3 == 0 else None for n in range(24)]
        assert {verdict.reason for verdict in found} == {None, "died"}
        assert len(set(small_pids(small))) == 2
    finally:
        small.close()


def either(number: int) -> int:
    if number % 3:
        os._exit(1)
    return number


def small_pids(small: Pool) -> list[int]:
    return [verdict.value for verdict in small.map(pid_after, [(0.5,)] * 2, seconds=10)]


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_a_script_without_a_guard_is_not_run_again_in_the_workers(tmp_path: Path) -> None:
    """As many a training script is that gives our rewards to TRL."""
    script = tmp_path / "train.py"
    script.write_text(
        "from rewards.maths import maths\n"
        "print('runs')\n"
        "print(maths([''] * 2, [r'\\sqrt{8}', r'\\sqrt{9}'], answer=[r'2\\sqrt{2}', r'\\sqrt{2}']))\n"
    )
    paths = {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, str(script)], env=os.environ | paths, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["runs", "[1.0, 0.0]"], done.stderr
