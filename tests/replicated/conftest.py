"""One Ray for all tests here, in this process: engines use it, and programs that tests start join it by its address."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.replicated import cluster
from engines.replicated.engine import ReplicatedEngine
from engines.settings import TransformersSettings
from tests.replicated.scripted_engine import open_scripted

PROCESSORS = 8


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Of the cluster that this process belongs to."""
    ray = cluster.import_ray()
    cluster.start(ray, PROCESSORS)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Path]:
    """A folder that is a checkpoint to a scripted engine."""
    made = iter(range(100))

    def make(**script: Any) -> Path:
        folder = tmp_path / f"script-{next(made)}"
        folder.mkdir()
        (folder / "script.json").write_text(json.dumps(script))
        return folder

    return make


@pytest.fixture
def opened(address: str) -> Iterator[Callable[..., ReplicatedEngine]]:
    """Opens engines of several workers, and closes them in the end."""
    engines = []

    def open_engine(folder: Path, **settings: Any) -> ReplicatedEngine:
        chosen = TransformersSettings.model_validate({"replicas": 2, "batch_size": 8, **settings})
        engines.append(ReplicatedEngine(chosen, str(folder), open_scripted))
        return engines[-1]

    yield open_engine
    for engine in engines:
        engine.close()


def diary(folder: Path, what: str) -> list[dict[str, Any]]:
    """What workers noted of one kind."""
    lines = (folder / "diary").read_text().splitlines() if (folder / "diary").exists() else []
    return [entry for entry in map(json.loads, lines) if entry["what"] == what]
