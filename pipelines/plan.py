"""The plan: which stages of a run are up to date, which have to run, and why."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.settings import unplaced
from pipelines.chain import Link, expand, problems, sources
from pipelines.errors import RecipeError, RunError
from pipelines.manifest import ATTEMPT_FILE, Manifest, changes, digest_of
from pipelines.recipe import Recipe
from pipelines.source import nearest


@dataclass(frozen=True, slots=True)
class Selection:
    """Which stages to run: one only, from one on, up to one. Those left out must be up to date where they are read."""

    only: str | None = None
    start: str | None = None
    until: str | None = None

    def of(self, parts: Sequence[Leg]) -> set[str]:
        """Label and name of each step selected. A plain name means that stage in every leg that has it.

        Raises `RunError` for a name that is not there.
        """
        names = list(dict.fromkeys(link.name for leg in parts for link in leg.links))
        for name in (self.only, self.start, self.until):
            if name is not None and name not in names:
                raise RunError(f"no stage is called `{name}`{nearest(name, names)}")
        if self.only:
            return {leg.label + self.only for leg in parts}
        first = names.index(self.start) if self.start else 0
        last = names.index(self.until) if self.until else len(names) - 1
        if first > last:
            raise RunError(f"--from {self.start} comes after --until {self.until}")
        return {leg.label + name for leg in parts for name in names[first : last + 1]}


@dataclass(frozen=True, slots=True)
class Leg:
    """A part of a run with its own seed and directory: one for each of `seeds`, and one for what combines them."""

    recipe: Recipe
    directory: Path
    links: tuple[Link, ...]
    label: str = ""

    @property
    def root(self) -> Path:
        """The directory of the whole run."""
        return self.directory.parent if self.label else self.directory

    def steps(self, made: Mapping[str, Step]) -> Iterator[Step]:
        """Its steps in order, each looked at only when it is asked for. `made`: label and name -> the steps before.

        The caller adds each step to `made` before it asks for the next.
        """
        digests = {name: step.digest for name, step in made.items()}
        for name, source in sources(self.recipe, self.links, digests).items():
            link = next(each for each in self.links if each.name == name)
            yield Step(self, link, source, reason_to_run(self, link, source, made))


@dataclass(frozen=True, slots=True)
class Step:
    """A link with its place, what its digest is made of, and why it has to run (None: it is up to date)."""

    leg: Leg
    link: Link
    source: Mapping[str, Any]
    reason: str | None

    @property
    def directory(self) -> Path:
        return self.leg.directory / self.link.name

    @property
    def digest(self) -> str:
        return digest_of(self.source)


def legs(recipe: Recipe, root: Path) -> list[Leg]:
    """The parts of a run in `root`, in order. Raises `RecipeError` with a line for each thing that is wrong."""
    links = expand(recipe)
    wrong = list(problems(recipe, links))
    if wrong:
        raise RecipeError("\n".join(f"{recipe.name}: {line}" for line in wrong))
    if not recipe.seeds:
        return [Leg(recipe, root, tuple(links))]
    each = tuple(link for link in links if not link.settings.combines_seeds)
    parts = [
        Leg(recipe.model_copy(update={"seed": seed}), root / f"seed-{seed}", each, f"seed-{seed}/")
        for seed in recipe.seeds
    ]
    together = []
    for link in links:
        if link.settings.combines_seeds:
            read = {f"{part.label}{name}": f"{part.label}{name}" for part in parts for name in link.upstream}
            together.append(Link(link.name, link.settings, read))
    return [*parts, Leg(recipe, root, tuple(together))] if together else parts


def plan(parts: Sequence[Leg]) -> list[Step]:
    """Every stage with the reason to run it, as far as the directories tell now."""
    made: dict[str, Step] = {}
    for leg in parts:
        for step in leg.steps(made):
            made[leg.label + step.link.name] = step
    return list(made.values())


def check_workers(recipe: Recipe, due: Iterable[Step]) -> None:
    """Raises `RunError` where a step that is due opens the engine and its workers cannot be had from this machine."""
    line = unplaced(recipe.engine)
    ray = sys.modules.get("ray")
    if line is None or (ray is not None and ray.is_initialized()):  # a cluster that this process has joined is used
        return
    if any("engine" in step.link.settings.uses for step in due):
        raise RunError(line)


def read_by(leg: Leg, link: Link, made: Mapping[str, Step]) -> list[Step]:
    """The steps whose outputs a link reads. `made`: label and name -> step."""
    return [made[leg.label + name] if leg.label + name in made else made[name] for name in link.upstream.values()]


def reason_to_run(leg: Leg, link: Link, source: Mapping[str, Any], made: Mapping[str, Step]) -> str | None:
    """Why the stage has to run, naming the keys that changed, or None when it is up to date."""
    directory = leg.directory / link.name
    manifest = Manifest.read(directory)
    if manifest is None:
        return _begun(directory / ATTEMPT_FILE, source)
    if manifest.digest != digest_of(source):
        return ", ".join(changes(manifest.source, source)) or "made by another version"
    damage = manifest.damage(directory)
    if damage:
        return damage
    for name, above in zip(link.upstream.values(), read_by(leg, link, made), strict=True):
        upstream = Manifest.read(above.directory)
        if above.reason is not None or upstream is None or upstream.fingerprint != manifest.inputs.get(name):
            return f"follows {name}"
    return None


def _begun(attempt: Path, source: Mapping[str, Any]) -> str:
    """What an attempt without an end comes to, if there is one: one with other settings is not gone on with."""
    if not attempt.exists():
        return "not run yet"
    begun = json.loads(attempt.read_text(encoding="utf-8"))
    if begun.get("digest") == digest_of(source):
        return "goes on after an interruption"
    changed = ", ".join(changes(begun["source"], source)) if "source" in begun else ""
    return f"interrupted, and since then changed: {changed or 'the version'}"
