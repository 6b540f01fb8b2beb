"""What the pipeline itself costs: the real stages around an engine whose time is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from pipelines.context import StageContext
from pipelines.manifest import Manifest
from pipelines.plan import Selection
from pipelines.recipe import Recipe
from pipelines.runner import run
from pipelines.stage import StageResult
from pipelines.stages.tune import TuneStage
from selfrefine.triad.templates import Prompts
from tests.benchmarks.delayed_engine import DelayedEngine

STAGES = ("generate", "filter", "evaluate")


def run_around_delayed_engine(
    directory: Path, *, images: int, problems: int, delay: float, batch_size: int = 64
) -> tuple[dict[str, float], DelayedEngine]:
    """Seconds of each stage beyond the engine's own waiting, and the engine with its counts.

    Generate, filter and evaluate are the real stages, run by the real runner; only tune, which would train, is left
    out. Similarity is the lexical one: a sentence model would be a second engine.
    """
    prompts = Prompts(system=None)
    engine = DelayedEngine(prompts, delay, batch_size)
    marks: dict[str, float] = {}
    # Nearest images are found with the checkpoint's own vision encoder, which is not there.
    measure = {"samples": 4, "other_images": 4, "edge_negatives": "random"}
    recipe = Recipe.model_validate(
        {
            "name": "overhead",
            "model": {"build": {}},
            "data": {
                "labelled": {"task": "easy-vqa", "take": 1},
                "unlabelled": {"task": "easy-vqa", "skip": 1, "take": images},
                "test": {"task": "easy-vqa", "split": "test"},
            },
            "stages": [
                {"kind": "tune", "prompts": prompts.model_dump()},
                {"kind": "generate"},
                {"kind": "filter", "similarity": "lexical", "measure": measure},
                {"kind": "evaluate", "limit": problems},
            ],
        }
    )

    def say(line: str) -> None:
        name, _, rest = line.partition(": ")
        if rest.startswith("done"):
            marks[name] = engine.waited

    with _in_place_of_a_model(engine):
        run(recipe, directory, Selection(), say)
    beyond, before = {}, 0.0
    for name in STAGES:
        manifest = Manifest.read(directory / name)
        assert manifest is not None
        beyond[name] = manifest.seconds - (marks[name] - before)
        before = marks[name]
    return beyond, engine


@contextmanager
def _in_place_of_a_model(engine: DelayedEngine) -> Iterator[None]:
    def no_training(self: TuneStage, context: StageContext) -> StageResult:
        checkpoint = context.directory / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "config.json").write_text("{}", encoding="utf-8")
        return StageResult()

    with mock.patch.object(TuneStage, "run", no_training), mock.patch("engines.open.open_engine", return_value=engine):
        yield
