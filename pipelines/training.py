"""What the training stages share: where they start, and a training that reports and stops politely."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.errors import Interrupted, RunError

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from selfrefine.sft import Example, SftSettings
    from tasks.problem import Problem

ACCEPTED_FILE = "accepted.parquet"


def start_checkpoint(context: StageContext, texts: Sequence[str]) -> str:
    """The model this round starts from: the last update's, else the recipe's, which is built first if need be.

    `texts`: what the tokenizer of a model to build learns from.
    """
    if "update" in context.inputs:
        return str(context.inputs["update"] / "checkpoint")
    model = context.recipe.model
    if model.build is None:
        return str(model.adapter or model.path)
    from selfrefine.build import build_vlm

    initial = context.directory / "initial"
    build_vlm(model.build, texts, initial, context.seed)
    return str(initial)


def accepted_before(context: StageContext) -> list[Problem]:
    """The pairs that earlier rounds accepted, as problems; D_k is the labelled seed and these."""
    if "update" not in context.inputs:
        return []
    import pyarrow.parquet as parquet

    from tasks.problem import Problem

    rows = parquet.read_table(context.inputs["update"] / ACCEPTED_FILE).to_pylist()
    return [Problem(**row) for row in rows]


def train(context: StageContext, examples: Sequence[Example], start: str, settings: SftSettings) -> dict[str, Any]:
    """Trains into the stage's directory, with a bar; returns the numbers to show. Raises `Interrupted` when stopped."""
    from selfrefine.sft import TrainingStopped, fine_tune

    if not examples:
        raise RunError("nothing to train on; the data have no questions with answers")
    context.close_engine()
    seen = 0
    with context.progress(total_steps(len(examples), settings), "training") as bar:

        def on_log(row: Mapping[str, Any]) -> None:
            nonlocal seen
            context.log(row)
            bar.advance(int(row["step"]) - seen)
            seen = int(row["step"])

        try:
            return dict(
                fine_tune(
                    examples,
                    start,
                    context.directory,
                    settings,
                    context.seed,
                    trust_remote_code=context.recipe.model.trust_remote_code,
                    on_log=on_log,
                    should_stop=lambda: context.stop.requested,
                )
            )
        except TrainingStopped as stopped:
            raise Interrupted(f"saved at {stopped}") from None


def total_steps(examples: int, settings: SftSettings) -> int:
    """Optimiser steps of a training."""
    per_epoch = -(-examples // settings.batch_size)
    return settings.steps or max(1, round(per_epoch * settings.epochs))
