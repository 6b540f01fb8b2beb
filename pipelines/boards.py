"""Whether recurrent reasoners can learn, and the ones among checkpoints read, what they are to be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.checkpoints import engine_kind
from pipelines.errors import RunError
from tasks.problem import TaskError
from tasks.registry import grids

if TYPE_CHECKING:
    from pipelines.recipe import Recipe
    from pipelines.stages.evaluate import EvaluateStage
    from pipelines.stages.recur import RecurStage
    from tasks.problem import Problem
    from tasks.puzzles.grid import Grids


def training_lines(recipe: Recipe, stage: RecurStage) -> Iterator[str]:
    """What a plan can say against the training of a reasoner, by the settings of its data."""
    found = {name: _known(recipe, name) for name in (stage.data, stage.validation) if name is not None}
    own, unseen = found[stage.data], found.get(stage.validation or stage.data)
    if own and stage.symmetry not in ("none", own.puzzle):
        yield (
            f"{stage.name}.symmetry: {stage.symmetry}: data.{stage.data} has puzzles of the kind {own.puzzle}; give "
            f"symmetry: {own.puzzle}, or none"
        )
    for name, known in found.items():
        if known and stage.alphabet and (missing := [sign for sign in known.signs if sign not in stage.alphabet]):
            yield (
                f"{stage.name}.alphabet: {stage.alphabet!r} has no {', '.join(missing)}, which are in the grids of "
                f"data.{name}; leave alphabet out, and it is that of data.{stage.data}"
            )
    if line := _other(f"data.{stage.validation}", unseen, stage, own):
        yield f"{stage.name}.validation: {line}"


def copied_line(recipe: Recipe, stage: RecurStage) -> str | None:
    """A warning where the copies that a reasoner trains on may be puzzles of other splits."""
    own = _known(recipe, stage.data)
    if stage.symmetry == "none" or own is None or own.apart is not False:
        return None
    return (
        f"symmetry: data.{stage.data} parts its splits by clues, and copies of its puzzles may be those of another "
        "split; give each section split_by: symmetry"
    )


def asking_lines(recipe: Recipe, stage: EvaluateStage, section: Mapping[str, Any]) -> Iterator[str]:
    """What a plan can say against asking reasoners the problems of a task's `section`."""
    asked = _grids(section)
    if asked and asked.puzzle != "sudoku" and getattr(recipe.engine, "early_stop", None) == "sudoku":
        yield (
            f"engine.early_stop: sudoku stops by the rules of that puzzle, and {stage.name} asks puzzles of the kind "
            f"{asked.puzzle}; give fixed_point, or none"
        )
    for each in recipe.stages:
        if each.kind == "recur":
            trained: RecurStage = each  # type: ignore[assignment]
            if line := _other("what is asked", asked, trained, _known(recipe, trained.data)):
                yield f"{stage.name}: {line}"


def _other(what: str, found: Grids | None, stage: RecurStage, own: Grids | None) -> str | None:
    """A line where what is found are no grids such as a reasoner was trained on."""
    if found is None or own is None:
        return None
    if found.puzzle != own.puzzle:
        kinds = (f"of the kind {each.puzzle}" for each in (found, own))
    elif found.side != own.side and None not in (found.side, own.side):
        kinds = (f"of side {each.side}" for each in (found, own))
    else:
        return None
    return f"{what} is {next(kinds)}, and data.{stage.data}, which {stage.name} trains on, {next(kinds)}; make them one"


def _known(recipe: Recipe, name: str) -> Grids | None:
    return _grids(recipe.data[name].model_dump()) if name in recipe.data else None


def _grids(section: Mapping[str, Any]) -> Grids | None:
    try:
        return grids(**section)
    except TaskError:
        return None  # a line on the data says so already


def check_boards(suite: str, checkpoints: Mapping[str, str], problems: Sequence[Problem]) -> None:
    """`checkpoints`: label -> directory. Raises `RunError` where one is a reasoner that can read none of the problems,
    which would all be ungraded, and `EngineError` where its config is damaged."""
    reasoners = {label: path for label, path in checkpoints.items() if engine_kind(path) == "latent"}
    if not reasoners or not problems:
        return
    from selfrefine.latent.config import read_config
    from selfrefine.latent.grids import GridError, read_board

    for label, path in reasoners.items():
        config, reasons = read_config(path), Counter[str]()
        for problem in problems:
            try:
                read_board(problem.question, problem.image, config)
            except GridError as error:
                reasons[str(error)] += 1
        if reasons.total() == len(problems):
            raise RunError(
                f"{suite}: {label} can read none of the {len(problems)} problems, most often: "
                f"{reasons.most_common(1)[0][0]}; ask it a suite of grids such as it was trained on"
            )
