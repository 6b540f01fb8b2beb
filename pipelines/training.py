"""What the training stages share: where they start, and a training that reports and stops politely."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import Interrupted, RunError
from pipelines.files import remove, temporary_name, whole
from pipelines.heartbeat import TRAINING
from selfrefine.tracking import Tracking
from selfrefine.training import is_first

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from pipelines.progress import Progress
    from pipelines.sections import ModelSettings
    from selfrefine.sft import EpochSettings, Example, SftSettings
    from tasks.problem import Problem

WARNINGS_FILE = "warnings.txt"
ACCEPTED_FILE = "accepted.parquet"
CHECKPOINT, SAVES = "checkpoint", "trainer"
"""Folders of a training stage: what it makes, and from what it resumes, which goes when that is made."""
TRACKED = "_tracking"
"""Folder of a run for what trackers keep on this machine; no stage can be called so."""
NUMBERS_FILE = "training.json"
"""Inside a checkpoint, so that one is there with the other: the numbers its training returned."""


class Warnings:
    """One-line warnings of a training, kept in a file of the stage so that a kill loses none. Each is said once.

    Of several processes the first one says them.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / WARNINGS_FILE

    def add(self, line: str) -> None:
        if is_first() and line not in self.lines():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def lines(self) -> list[str]:
        return self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []


def start_checkpoint(context: StageContext, kinds: Sequence[str], texts: Sequence[str] = ()) -> str:
    """The weights to begin with: those of the last stage of `kinds` that is read, else the recipe's.

    A model that the recipe describes is built first; `texts` are what its tokenizer learns from.
    """
    trained = [directory for kind, directory in context.inputs.items() if kind in kinds]
    if trained:
        return str(trained[-1] / CHECKPOINT)
    model = context.recipe.model
    if model.build is None:
        return named_checkpoint(model)
    from selfrefine.build import build_model

    # Resolved, because an adapter trained on it names it as its base, and later runs may start elsewhere.
    initial = context.directory.resolve() / "initial"
    if not initial.exists():
        with whole(initial) as path:
            build_model(model.build, texts, path, context.seed)
    return str(initial)


def named_checkpoint(model: ModelSettings) -> str:
    """The checkpoint that a recipe names; a revision of the hub is fetched. Raises `RunError` where it cannot be."""
    return model.adapter or _local(str(model.path), model.revision)


def _local(path: str, revision: str | None) -> str:
    """The path itself, or the directory of a hub model's revision: an adapter records its base without a revision."""
    if revision is None:
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return snapshot_download(path, revision=revision)
    except (OSError, HFValidationError) as error:  # Not there, not reachable, not a name.
        reason = str(error).strip().splitlines()[0]
        raise RunError(f"model.path {path}, revision {revision}: cannot be fetched ({reason})") from None


def accepted_before(context: StageContext) -> list[Problem]:
    """The pairs that earlier rounds accepted, as problems; D_k is the labelled seed and these."""
    if "update" not in context.inputs:
        return []
    import pyarrow.parquet as parquet

    from tasks.problem import Problem

    rows = parquet.read_table(context.inputs["update"] / ACCEPTED_FILE).to_pylist()
    return [Problem(**row) for row in rows]


def train(context: StageContext, examples: Sequence[Example], start: str, settings: SftSettings) -> dict[str, Any]:
    """Fine-tunes into the stage's directory; returns the numbers to show. Raises `Interrupted` when stopped."""
    from selfrefine.sft import fine_tune

    if not examples:
        raise RunError("nothing to train on; the data have no questions with answers")

    def fit(directory: Path, saves: Path, **surroundings: Any) -> dict[str, float | int]:
        return fine_tune(examples, start, directory, saves, settings, context.seed, **surroundings)

    return trained(context, total_steps(len(examples), settings), fit)


class TookPart(Exception):
    """In one of several processes: the training is over, and what follows in the stage is the driver's."""


def trained(context: StageContext, steps: int, fit: Callable[..., dict[str, float | int]]) -> dict[str, Any]:
    """Calls `fit` with a place for the checkpoint and one for saves, shows a bar, and keeps its numbers beside.

    Where the stage has several processes, these come here as well and call `fit` instead of the driver.

    Raises `Interrupted` when stopped, `TookPart` in processes that are there for the training alone.
    """
    context.close_engine()
    checkpoint, saves = context.directory / CHECKPOINT, context.directory / SAVES
    # They are there where a run was killed between here and the manifest; the runner clears what is stale.
    if not (checkpoint / NUMBERS_FILE).is_file():
        with context.progress(steps, TRAINING) as bar:
            if context.launch is not None:
                context.launch(context, bar)
            else:
                _train_here(context, fit, checkpoint, saves, bar)
        if context.for_training_alone:
            raise TookPart
    remove(saves)
    return dict(json.loads((checkpoint / NUMBERS_FILE).read_text(encoding="utf-8")))


def _train_here(
    context: StageContext, fit: Callable[..., dict[str, float | int]], checkpoint: Path, saves: Path, bar: Progress
) -> None:
    from selfrefine.training import TrainingStopped

    model = context.recipe.model
    seen = 0

    def on_log(row: Mapping[str, Any]) -> None:
        nonlocal seen
        context.log(row)
        bar.advance(int(row["step"]) - seen)
        seen = int(row["step"])

    try:
        with whole(checkpoint) if is_first() else nullcontext(temporary_name(checkpoint)) as path:
            numbers = fit(
                path,
                saves,
                dtype="float32" if model.dtype == "auto" else model.dtype,
                trust_remote_code=model.trust_remote_code,
                on_log=on_log,
                should_stop=lambda: context.stop.requested,
                tracking=_tracking(context),
            )
            if is_first():
                (path / NUMBERS_FILE).write_text(json.dumps(numbers) + "\n", encoding="utf-8")
    except TrainingStopped as stopped:
        raise Interrupted(f"saved at {stopped}") from None


def _tracking(context: StageContext) -> Tracking | None:
    if not context.recipe.report_to:
        return None
    leg, recipe = context.directory.parent, context.recipe
    names = [recipe.name, *([] if leg.name == recipe.name else [leg.name]), context.directory.name]
    return Tracking(recipe.report_to, "/".join(names), leg / TRACKED / context.directory.name)


def total_steps(examples: int, settings: EpochSettings) -> int:
    """Optimiser steps of a training."""
    per_epoch = -(-examples // settings.batch_size)
    return settings.steps or max(1, round(per_epoch * settings.epochs))
