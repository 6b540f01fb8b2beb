"""What several workers gain, and what the process that hands out their work takes, around engines that only wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from engines.base import Decoding, Engine, Request
from engines.replicated import cluster
from engines.replicated.engine import ReplicatedEngine
from engines.settings import EngineSettings, TransformersSettings
from pipelines.machine import PeakMemory
from selfrefine.triad.templates import Prompts
from tests.benchmarks.delayed_engine import DelayedEngine

WORKERS = (1, 2, 4, 8)
DELAY = 1.0
BATCHES = 20
"""For each worker."""
COUNTS = (10_000, 100_000, 1_000_000)


class Questions(Sequence[Request]):
    """So many requests, two on each image, made when they are read."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> Request:  # type: ignore[override]
        if not 0 <= place < self._count:
            raise IndexError(place)
        turns = [{"role": "user", "content": f"What is to be seen in the picture, and where? {place}"}]
        return Request(f"question-{place}", turns, f"images/{place // 2}.png", Decoding(32), place)


def open_delayed(settings: EngineSettings, checkpoint: str) -> Engine:
    """The checkpoint is the delay in seconds."""
    assert isinstance(settings, TransformersSettings)
    return DelayedEngine(Prompts(system=None), float(checkpoint), settings.batch_size)


def seconds_with() -> Iterator[tuple[int, float]]:
    """(workers, seconds for as much work for each of them, which an engine here would do in `BATCHES * DELAY`)."""
    for workers in WORKERS:
        settings = TransformersSettings(replicas=workers)
        engine = _opened(settings, DELAY)
        try:
            requests = Questions(workers * BATCHES * settings.batch_size)
            start = time.perf_counter()
            assert sum(1 for _ in engine.generate(requests)) == len(requests)
            yield workers, time.perf_counter() - start
        finally:
            engine.close()


def coordination() -> Iterator[tuple[int, float, int]]:
    """(requests, seconds of this process's processor, its peak memory in MiB) with workers that take no time."""
    engine = _opened(TransformersSettings(replicas=2), 0.0)
    try:
        for count in COUNTS:
            memory, before = PeakMemory(), time.process_time()
            assert sum(1 for _ in engine.generate(Questions(count))) == count
            yield count, time.process_time() - before, memory.mib()
    finally:
        engine.close()


def _opened(settings: TransformersSettings, delay: float) -> ReplicatedEngine:
    ray = cluster.import_ray()
    if not ray.is_initialized():
        cluster.start(ray, max(WORKERS))  # more than there are cores: these workers only wait
    return ReplicatedEngine(settings, str(delay), open_delayed)
