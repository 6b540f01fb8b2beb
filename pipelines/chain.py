"""The chain: the stages of a recipe in the order they run, rounds and arms written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines.base import EngineError
from engines.checkpoint import base_of, check_checkpoint, is_adapter
from engines.settings import missing_engine, what_matters
from pipelines.checkpoints import check_loop, model_kind
from pipelines.context import derive_seed
from pipelines.errors import RecipeError
from pipelines.launching import checks as launching
from pipelines.manifest import digest_of
from pipelines.recipe import Recipe, override_stage, section
from pipelines.source import nearest
from pipelines.stage import StageSettings, TrainingSettings
from pipelines.trl_options import check_trl
from selfrefine.tracking import missing_tracker
from tasks.problem import TaskError


@dataclass(frozen=True, slots=True)
class Link:
    """One stage of the chain. `name` is `filter`, `filter.2` (round 2) or `filter.2@random` (its copy in an arm)."""

    name: str
    settings: StageSettings
    upstream: dict[str, str] = field(default_factory=dict)
    """Kind -> name of the link whose outputs are read, in the order of the chain; for a link that gathers, name -> name
    of all before it."""
    original: str | None = None
    """The shared link that this one is an arm's copy of."""

    @property
    def kind(self) -> str:
        return self.settings.kind


def expand(recipe: Recipe) -> list[Link]:
    """All links, each after those it reads. Raises `RecipeError` for an arm or an order that cannot be.

    The stages before the first that gathers make the round. An arm copies the first stage that it overrides and all
    later ones of the rounds; what comes before is shared.
    """
    cut = next((n for n, stage in enumerate(recipe.stages) if stage.gathers), len(recipe.stages))
    round_stages, closing = recipe.stages[:cut], recipe.stages[cut:]
    for stage in closing:
        if not stage.gathers:
            raise RecipeError(
                f"stages.{stage.name}: comes after `{closing[0].name}`, which looks back at all stages; move it"
            )
    shared = list(_line(recipe, round_stages, "", []))
    links = list(shared)
    for arm, overrides in recipe.arms.items():
        links += _arm(recipe, round_stages, shared, arm, overrides)
    for stage in closing:
        # One evaluation does not read another: a suite more is no reason to ask the others again.
        read = [link.name for link in links if stage.combines_seeds or not link.settings.gathers]
        links.append(Link(str(stage.name), stage, {name: name for name in read}))
    return links


def sources(
    recipe: Recipe, links: Sequence[Link], before: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Name -> what the link's digest is made of: settings, sections of the recipe, seed, digests of its upstream.

    `before`: digests of stages outside `links` that these read.
    """
    digests = dict(before or {})
    files: dict[str, dict[str, str]] = {}  # each folder is looked through once, however many stages read it
    made: dict[str, dict[str, Any]] = {}
    for link in links:
        used = {name: section(recipe, name) for name in link.settings.sections}
        made[link.name] = {
            "kind": link.kind,
            "settings": {k: v for k, v in what_matters(link.settings).items() if k not in ("kind", "name")},
            "versions": dict(link.settings.versions()),
            "sections": used | _local_files(recipe, link.settings.sections, files),
            "seed": derive_seed(recipe.seed, link.name),
            "inputs": {name: digests[name] for name in link.upstream.values()},
        }
        digests[link.name] = digest_of(made[link.name])
    return made


def problems(recipe: Recipe, links: Sequence[Link]) -> Iterator[str]:
    """One line for each thing that is wrong with the model, the data or a stage, found before anything runs."""
    for key, place in (("path", recipe.model.path), ("adapter", recipe.model.adapter)):
        try:
            if place is not None:
                check_checkpoint(place)
                if any("engine" in link.settings.uses for link in links):
                    check_loop(place, recipe.engine.kind)
        except EngineError as error:
            yield f"model.{key}: {error}"
    yield from _other_base(recipe)
    yield from _other_kind(recipe, links)
    for name, data in recipe.data.items():
        try:
            data.check()
        except TaskError as error:
            yield f"data.{name}: {error}"
    for tracker in recipe.report_to:
        if missing := missing_tracker(tracker):
            yield f"report_to: {missing}"
    said = set()
    for link in links:
        for line in _link_problems(recipe, link):
            if line not in said:
                said.add(line)
                yield line


def _other_base(recipe: Recipe) -> Iterator[str]:
    adapter, path = recipe.model.adapter, recipe.model.path
    if adapter is None or path is None or not is_adapter(Path(adapter)):
        return
    base = base_of(Path(adapter))
    if base != path and Path(base).resolve() != Path(path).resolve():
        yield (
            f"model.path: the adapter was trained on {base}, which is loaded, and not {path}; name that one here, "
            "or change base_model_name_or_path in adapter_config.json"
        )


def _other_kind(recipe: Recipe, links: Sequence[Link]) -> Iterator[str]:
    asking = next((link.name for link in links if "engine" in link.settings.uses), None)
    model, engine = model_kind(recipe.model), recipe.engine.kind
    if asking is None:
        return
    if model == "diffusion" and engine in ("transformers", "vllm"):
        yield f"engine.kind: {asking} asks a masked-diffusion model, which {engine} does not run; give diffusion"
    elif model == "transformers" and engine == "diffusion":
        yield f"engine.kind: {asking} asks an autoregressive model, which {engine} does not run; give transformers"


def unseen(recipe: Recipe) -> Iterator[str]:
    """One line for each thing that a plan cannot look at, or that this machine lacks."""
    if missing := missing_engine(recipe.engine):
        yield f"engine.kind: {missing}"
    for name, data in recipe.data.items():
        if note := data.check():
            yield f"data.{name}: {note}"


def _link_problems(recipe: Recipe, link: Link) -> Iterator[str]:
    for name in link.settings.sections:
        try:
            section(recipe, name)
        except RecipeError:
            there = nearest(name, [f"data.{each}" for each in recipe.data])
            yield f"stages.{link.name}: needs `{name}`, which the recipe does not have{there}"
            return
    if "model" in link.settings.uses and not link.settings.gathers and not recipe.model.given:
        yield f"stages.{link.name}: needs a model to start from; give the recipe model.path or model.build"
    if isinstance(link.settings, TrainingSettings):
        settings = link.settings
        yield from check_trl(settings.trl, settings.trl_config, settings.owned_trl_keys, link.name)
    yield from launching.problems(recipe, link.settings)
    yield from link.settings.check(recipe)


def _line(recipe: Recipe, stages: Sequence[StageSettings], arm: str, before: Sequence[Link]) -> Iterator[Link]:
    """The links of all rounds of one arm (`""`: the shared line); `before` are shared links it starts from."""
    line = list(before)
    for number in range(1, recipe.rounds + 1):
        for stage in stages:
            base = f"{stage.name}.{number}" if number > 1 else str(stage.name)
            if any(link.name == base for link in before):
                continue
            upstream = _upstream(stage, line)
            if stage.reads_original:
                if not arm:
                    raise RecipeError(f"stages.{stage.name}: only an arm can follow the stage it copies; set it there")
                upstream["original"] = base
            link = Link(f"{base}@{arm}" if arm else base, stage, upstream, base if arm else None)
            line.append(link)
            yield link


def _upstream(stage: StageSettings, line: Sequence[Link]) -> dict[str, str]:
    latest = {link.kind: link.name for link in line}
    for kind in stage.requires:
        if kind not in latest:
            raise RecipeError(
                f"stages.{stage.name}: needs a `{kind}` stage before it{stage.otherwise and '; '}{stage.otherwise}"
            )
    wanted = (*stage.requires, *stage.accepts)
    return {link.kind: link.name for link in line if link.kind in wanted and latest[link.kind] == link.name}


def _arm(
    recipe: Recipe, stages: Sequence[StageSettings], shared: Sequence[Link], arm: str, overrides: dict[str, object]
) -> list[Link]:
    where = f"arms.{arm}"
    if not overrides:
        raise RecipeError(
            f"{where}: overrides nothing; name a setting, such as filter.select.fraction: 0.2, or remove the arm"
        )
    names = [str(stage.name) for stage in stages]
    by_stage: dict[str, list[tuple[str, object]]] = {}
    for dotted, value in overrides.items():
        name, _, setting = dotted.partition(".")
        if name not in names or not setting:
            hint = nearest(name, names) if name not in names else "; name a setting of the stage"
            raise RecipeError(f"{where}.{dotted}: does not begin with a stage that arms can vary{hint}")
        by_stage.setdefault(name, []).append((setting, value))
    changed = [override_stage(stage, by_stage.get(str(stage.name), []), where) for stage in stages]
    first = min(names.index(name) for name in by_stage)
    return list(_line(recipe, changed, arm, shared[:first]))


def _local_files(
    recipe: Recipe, sections: Sequence[str], known: dict[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Fingerprints of local files behind the sections that are used, so that changed files count as changed inputs."""
    for name in sections:
        head, _, key = name.partition(".")
        if name == "model" and name not in known:
            known[name] = recipe.model.files()
        elif head == "data" and name not in known:
            known[name] = recipe.data[key].files()
    return {f"{name} files": known[name] for name in sections if known.get(name)}
