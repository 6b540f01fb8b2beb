"""Runs the real stages on an engine that knows nothing: `driver.py RUNS SETTINGS`, settings of the engine in JSON.

Exit status 3 means that it was asked to stop and did.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

from engines.base import Engine
from engines.replicated.engine import ReplicatedEngine
from engines.settings import EngineSettings, TransformersSettings
from pipelines.context import StageContext
from pipelines.errors import Interrupted
from pipelines.plan import Selection
from pipelines.recipe import Recipe
from pipelines.runner import run
from pipelines.stage import StageResult
from pipelines.stages.tune import TuneStage
from selfrefine.triad.templates import Prompts
from tests.benchmarks.delayed_engine import DelayedEngine

SECONDS = 0.1
STAGES = [
    {"kind": "tune", "prompts": {"system": None}},
    {"kind": "generate", "chunk": 12},
    {
        "kind": "filter",
        "chunk": 8,
        "similarity": "lexical",
        "measure": {"samples": 2, "other_images": 2, "edge_images": 2, "edge_negatives": "random"},
    },
    {"kind": "evaluate", "limit": 60, "chunk": 16, "n": 2, "decoding": {"temperature": 1}},
]


def open_delayed(settings: EngineSettings, checkpoint: str) -> Engine:
    assert isinstance(settings, TransformersSettings)
    return DelayedEngine(Prompts(system=None), SECONDS, settings.batch_size)


def recipe(settings: dict[str, object]) -> Recipe:
    data = {
        "labelled": {"task": "easy-vqa", "take": 1},
        "unlabelled": {"task": "easy-vqa", "skip": 1, "take": 36},
        "test": {"task": "easy-vqa", "split": "test"},
    }
    engine = {"kind": "transformers", "batch_size": 8, **settings}
    return Recipe.model_validate(
        {"name": "r", "model": {"build": {}}, "engine": engine, "data": data, "stages": STAGES}
    )


def main(runs: str, settings: str) -> int:
    def opened(settings: TransformersSettings, checkpoint: str) -> Engine:
        if settings.on_ray:
            # By its name, under which the workers find it: here it is that of the program.
            from tests.replicated import driver

            return ReplicatedEngine(settings, str(checkpoint), driver.open_delayed)
        return open_delayed(settings, str(checkpoint))

    def no_training(self: TuneStage, context: StageContext) -> StageResult:
        checkpoint = context.directory / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "config.json").write_text("{}", encoding="utf-8")
        return StageResult()

    two_cores = mock.patch("engines.settings.cores", lambda: 2)  # wherever the tests are held: these workers only wait
    with mock.patch.object(TuneStage, "run", no_training), mock.patch("engines.open.open_engine", opened), two_cores:
        try:
            run(recipe(json.loads(settings)), Path(runs), Selection(), lambda line: print(line, flush=True))
        except Interrupted as stopped:
            print(stopped)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
