"""What a run directory holds, read for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipelines.errors import RunError
from pipelines.evaluation import KINDS, RESULT_FILE, Stored
from pipelines.manifest import MANIFEST_FILE, Manifest
from pipelines.runner import RECIPE_FILE


@dataclass(frozen=True, slots=True)
class StageView:
    """A finished stage."""

    name: str
    directory: Path
    manifest: Manifest

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def arm(self) -> str | None:
        return self.name.partition("@")[2] or None


@dataclass(frozen=True, slots=True)
class RunView:
    """`recipe` is the text of the resolved recipe; `stages` are the finished ones, in the order of the chain.

    `outdated` names those that read what has been made anew since; they are not among `stages`. `evaluations` are the
    results among `stages`, in the same order.
    """

    name: str
    directory: Path
    recipe: str
    stages: Sequence[StageView]
    evaluations: Sequence[Stored] = ()
    outdated: Sequence[str] = ()

    @property
    def seconds(self) -> float:
        """Wall time of all stages together."""
        return sum(stage.manifest.seconds for stage in self.stages)

    def of_kind(self, kind: str) -> list[StageView]:
        return [stage for stage in self.stages if stage.kind == kind]


def seed_directories(directory: Path) -> list[Path]:
    """The runs of the recipe's `seeds:`, in its order; none for a plain run.

    Seeds that an earlier version of the recipe had may still lie there: they are not of this run.
    """
    path = directory / RECIPE_FILE
    recipe = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return [directory / f"seed-{seed}" for seed in recipe.get("seeds") or []]


def read_run(directory: Path) -> RunView:
    """Reads a run, or the part of a run that has one seed.

    Raises:
        RunError: the directory is no run, or none of its stages is finished.
    """
    # The runs of several seeds share the recipe above them.
    recipe = next((path for path in (directory / RECIPE_FILE, directory.parent / RECIPE_FILE) if path.is_file()), None)
    if recipe is None:
        raise RunError(f"{directory}: no run here (it holds no {RECIPE_FILE}); name a directory under runs/")
    found: dict[str, StageView] = {}
    for path in directory.glob(f"*/{MANIFEST_FILE}"):
        manifest = Manifest.read(path.parent)
        if manifest is not None and manifest.kind != "report":
            found[manifest.stage] = StageView(manifest.stage, path.parent, manifest)
    if not found:
        raise RunError(f"{directory}: no stage of this run is finished yet")
    outdated = _outdated(found)
    current = {name: stage for name, stage in found.items() if name not in outdated}
    text = recipe.read_text(encoding="utf-8")
    stages = _in_order(current, [each["name"] for each in yaml.safe_load(text).get("stages") or []])
    evaluations = [each for stage in stages if (each := _stored(stage)) is not None]
    return RunView(directory.resolve().name, directory, text, stages, evaluations, sorted(outdated))


def _stored(stage: StageView) -> Stored | None:
    path = stage.directory / RESULT_FILE
    if stage.kind not in KINDS or not path.is_file():
        return None
    return Stored(stage.name, stage.directory, json.loads(path.read_text(encoding="utf-8")))


def _outdated(found: Mapping[str, StageView]) -> set[str]:
    """The stages with an input that is gone, differs from the one they read, or is outdated itself."""
    outdated: set[str] = set()
    while True:
        more = {
            name
            for name, stage in found.items()
            if name not in outdated
            for above, fingerprint in stage.manifest.inputs.items()
            if above not in found or above in outdated or found[above].manifest.fingerprint != fingerprint
        }
        if not more:
            return outdated
        outdated |= more


def _in_order(found: Mapping[str, StageView], recipe: Sequence[str]) -> list[StageView]:
    """The stages in the order of the chain, then the evaluations in that of `recipe`, the names of its stages.

    What an earlier recipe has left is not among them: an evaluation looks at all stages before it, so its manifest
    lists the chain. Without an evaluation the time decides.
    """
    by_time = sorted(found.values(), key=lambda stage: stage.manifest.started)
    asked = [stage for stage in by_time if stage.kind == "evaluate" and (stage.name in recipe or not recipe)]
    if not asked:
        return [stage for stage in by_time if stage.kind not in KINDS]
    chain = [found[name] for name in asked[-1].manifest.inputs if name in found]
    if recipe:
        asked.sort(key=lambda stage: recipe.index(stage.name))
    again = [stage for stage in by_time if stage.kind in KINDS and stage.kind != "evaluate"]
    # Answers that were scored again stand below the evaluation that they come from.
    both = [[stage, *(each for each in again if stage.name in each.manifest.inputs)] for stage in asked]
    return [*chain, *(stage for each in both for stage in each)]
