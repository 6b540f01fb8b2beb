"""Fixtures for tests that run `trivium` in child processes, whole or killed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# What the stages import lazily, so that forks of `real_children` start at once.
REAL = (
    *("torch", "datasets", "peft.peft_model", "scipy.stats", "pyarrow.parquet", "matplotlib.figure", "trl.trainer"),
    *("transformers.models.auto.modeling_auto", "transformers.models.auto.processing_auto"),
    *("transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "transformers.models.qwen2_5_vl.processing_qwen2_5_vl"),
    *(
        "trl.trainer.sft_trainer",
        "selfrefine.stepwise.trainer",
        "engines.transformers",
        "pipelines.report.page",
        "eval.compare",
    ),
)
CHILD = Path(__file__).with_name("child.py")
TIMES = {"started", "seconds", "attempts", "peak_memory_mib", "time", "revision", "uncommitted_changes"}
"""Keys in which an interrupted run may differ from an undisturbed one: times, and the checkout between the two."""


@dataclass(frozen=True)
class Outcome:
    """How a child ended: exit code (or minus the signal), number of files it put in place, what it printed."""

    code: int
    writes: int
    text: str


class Children:
    """A process that has imported what a run needs, and forks a child for each command."""

    def __init__(self, output: Path, modules: tuple[str, ...] = ()) -> None:
        self._output = output
        self._server = subprocess.Popen(
            [sys.executable, str(CHILD), "serve", *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def trivium(
        self, *arguments: object, fault: str | None = None, at: int = 0, ranks: int = 0, output: Path | None = None
    ) -> Outcome:
        """Runs one command; `fault` (`kill before`, `kill after`, `full disk`) strikes at the `at`-th write.

        `ranks`: the command is started so many times, as by a launcher; the outcome is that of the first.
        """
        job = {"arguments": [str(a) for a in arguments], "fault": fault, "at": at, "ranks": ranks}
        job["output"] = str(output or self._output)
        assert self._server.stdin and self._server.stdout
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        return Outcome(answer["code"], answer["writes"], Path(job["output"]).read_text())

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(timeout=30)


@pytest.fixture(scope="session")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    """Children without torch."""
    made = Children(tmp_path_factory.mktemp("children") / "output.txt")
    yield made
    made.close()


@pytest.fixture(scope="session")
def real_children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Children]:
    """Children that run the real stages."""
    made = Children(tmp_path_factory.mktemp("children") / "output.txt", REAL)
    yield made
    made.close()


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, Any]]:
    """Relative name -> content of every file of a run, times taken out: what two runs are compared by."""

    def take(root: Path) -> dict[str, Any]:
        files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "lock")
        return {str(path.relative_to(root)): _content(path) for path in files}

    return take


def _content(path: Path) -> Any:
    if path.name in ("manifest.json", "attempt.json"):
        return _timeless(json.loads(path.read_text()))
    # Trials keep in their shards how long an answer took.
    if path.name == "metrics.jsonl" or (path.suffix == ".jsonl" and "shards" in path.parts):
        return [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return path.read_bytes()


def _timeless(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in TIMES}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models `first`, `second` and `masked` of `letters.py`."""
    from tests.pipelines.letters import make_models

    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """The suite of `letters.py`, beside its data."""
    from tests.pipelines.letters import ROWS, write

    data = tmp_path / "letters.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return write(tmp_path / "letters.yaml", data)
