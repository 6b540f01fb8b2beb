"""Runs the tests in parts, as many at a time as there are cores: `python -m tools.run_tests [ARGUMENTS OF PYTEST]`.

A part has a process of its own, because vLLM and a trainer both set what holds for a whole process; and one thread,
because models this small gain nothing from a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

TESTS = Path("tests")
ALONE = (
    TESTS / "pipelines/test_real_chain.py",
    TESTS / "pipelines/test_launch.py",
    TESTS / "pipelines/test_sharded_training.py",
    TESTS / "stepwise/test_colocate.py",
    TESTS / "engines/test_parity.py",
    TESTS / "engines/test_recipe_on_vllm.py",
    TESTS / "stepwise/test_two_processes.py",
    TESTS / "rewards/test_reasoning_gym.py",
    TESTS / "pipelines/test_recipes.py",
)
"""Files that take minutes: they begin first, so that none is left over at the end."""
LONG = (TESTS / "stepwise", TESTS / "replicated", TESTS / "pipelines", TESTS / "engines", TESTS / "diffusion")
"""Folders that take a minute or more without those files: each is a part, and they begin before the others."""
NOTHING_CHOSEN = 5
"""pytest's exit status where arguments such as `-k` leave no test of a part."""


def main(arguments: list[str]) -> int:
    chosen, failed = parts(), []
    start = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(run, [*part, *arguments]): name(part) for part in chosen}
        for done in as_completed(running):
            status, seconds, output = done.result()
            print(f"{output}{running[done]}: {seconds:.0f} s", flush=True)
            if status not in (0, NOTHING_CHOSEN):
                failed.append(running[done])
    print(f"{len(chosen)} parts, {time.monotonic() - start:.0f} s" + "".join(f"; FAILED: {part}" for part in failed))
    return 1 if failed else 0


def parts() -> list[list[str]]:
    """What pytest is called with for each part: a file, or folders without the files that have a part of their own.

    Small folders are two parts together, since a process imports for longer than most of them take.
    """
    folders = sorted(path for path in TESTS.iterdir() if path.is_dir() and next(path.glob("test_*.py"), None))
    small = [path for path in folders if path not in LONG]
    together = [[path] for path in folders if path in LONG] + [half for half in (small[::2], small[1::2]) if half]
    return [[str(path)] for path in ALONE] + [
        [*map(str, part), *(f"--ignore={each}" for each in ALONE if set(part) & set(each.parents))] for part in together
    ]


def name(part: list[str]) -> str:
    """The files and folders of a part."""
    return " ".join(each for each in part if not each.startswith("--"))


def run(arguments: list[str]) -> tuple[int, float, str]:
    """(exit status, seconds, output) of a pytest of its own."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        # Python may be told to keep no bytecode; each process would then compile torch, TRL and vLLM anew.
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, time.monotonic() - start, done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
