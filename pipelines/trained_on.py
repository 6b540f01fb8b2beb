"""Whether a run has trained on what it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipelines.stage import DataStageSettings

if TYPE_CHECKING:
    from eval.overlap import TrainingRow
    from pipelines.recipe import Recipe
    from tasks.problem import Problem

SHOWN = 20
"""Problems that a result names."""


def overlap_of(recipe: Recipe, problems: Sequence[Problem]) -> dict[str, Any] | None:
    """Problems that are found again in the data that stages of the recipe train on; None where none trains.

    JSON values: rows and problems looked at, counts by reason, the first problems found with the row of each.
    """
    from eval.overlap import overlap

    names = _sections(recipe)
    if not names:
        return None
    found = asdict(overlap(_rows(recipe, names), problems))
    every = found.pop("found")
    counts: dict[str, int] = {}
    for reasons in every.values():
        for reason in reasons:
            counts[reason] = counts.get(reason, 0) + 1
    first = dict(list(every.items())[:SHOWN])
    return {"sections": names, **found, "found": len(every), "counts": counts, "first": first}


def warning(found: dict[str, Any] | None) -> Iterator[str]:
    """A line on what was found."""
    if found and found["found"]:
        problem, reasons = next(iter(found["first"].items()))
        reason, row = next(iter(reasons.items()))
        yield (
            f"{found['found']} of {found['problems']} problems are in the training data too, such as {problem} "
            f"({reason}, row {row}); evaluate without them, or train without those rows"
        )


def _sections(recipe: Recipe) -> list[str]:
    """The data sections that stages other than evaluations read. Not those that are made by a seed: their splits share
    no problem, and making them takes long."""
    from tasks.registry import makes_problems

    used = (stage.data for stage in recipe.stages if isinstance(stage, DataStageSettings) and not stage.gathers)
    there = (name for name in dict.fromkeys(used) if name in recipe.data)
    return [name for name in there if not makes_problems(recipe.data[name].task)]


def _rows(recipe: Recipe, names: Sequence[str]) -> Iterator[TrainingRow]:
    from eval.overlap import TrainingRow

    for name in names:
        rows = recipe.data[name].load()
        for problem in rows.problems:
            yield TrainingRow(f"{name}/{problem.id}", (problem.question, problem.answer), problem.image)
        for picture in rows.pictures:
            yield TrainingRow(f"{name}/{picture.id}", (), picture.path)
