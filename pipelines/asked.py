"""The checkpoints that an evaluation asks: those of the run, and others by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import EngineError
from engines.looped.config import is_looped
from engines.settings import EndpointSettings
from pipelines.checkpoints import (
    Checkpoint,
    chat_template,
    check_loop,
    checkpoints,
    engine_kind,
    identity_of,
    root_of,
)
from pipelines.errors import RunError

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe


def check_named(named: Mapping[str, str], where: str, engine: str) -> Iterator[str]:
    """A line for each of `named`, label -> path, that an engine of this kind cannot ask; `where` is the key that they
    stand under."""
    from engines.checkpoint import check_checkpoint

    for label, path in named.items():
        try:
            check_checkpoint(path)
            check_loop(path, engine)
            kind = engine_kind(path)
            if "latent" in (kind, engine) and kind != engine and Path(root_of(path)).is_dir():
                yield f"{where}.{label}: {path}: is for engine {kind}, not for {engine}; give engine.kind={kind}"
            elif kind != "latent" and chat_template(path) == "":
                yield f"{where}.{label}: {path}: has no chat template; add chat_template.jinja to its directory"
        except EngineError as error:
            yield f"{where}.{label}: {error}"


def check_iterations(recipe: Recipe, named: Mapping[str, str], stage: str) -> Iterator[str]:
    """A line where iterations are asked for, and none of the recipe's checkpoints or of `named` has a loop."""
    if getattr(recipe.engine, "iterations", None) is None or any(each.kind == "reflect" for each in recipe.stages):
        return
    places = (recipe.model.adapter or recipe.model.path, *named.values())
    if not any(_may_loop(place) for place in places if place is not None):
        yield f"engine.iterations: no checkpoint that {stage} asks has a loop; leave it out, or ask one that has"


def _may_loop(path: str) -> bool:
    """True also where the directory is damaged, of which another line tells."""
    try:
        return is_looped(Path(path))
    except EngineError:
        return True


def asked(context: StageContext, named: Mapping[str, str]) -> list[Checkpoint]:
    """The run's checkpoints and `named`, label -> path.

    Raises `RunError` where there are none, two have one name, or one endpoint would answer for several.
    """
    found = checkpoints(context)
    for label, path in named.items():
        if label in {each.name for each in found}:
            raise RunError(f"evaluate.checkpoints: a stage of the recipe is called {label} too; name it otherwise")
        found.append(Checkpoint(label, path, identity_of(path)))
    if not found:
        raise RunError(
            "evaluate: no stage before it made a checkpoint; add `tune` or `update` to the recipe, or name one "
            "in evaluate.checkpoints"
        )
    engine = context.recipe.engine
    if isinstance(engine, EndpointSettings) and engine.model and len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise RunError(f"engine.model: {engine.model} would answer for all of {names}; leave it out and serve them all")
    return found
