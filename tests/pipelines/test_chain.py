"""Rounds, arms and seeds are written out as the recipe means them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from engines.settings import TransformersSettings
from pipelines.chain import expand, sources
from pipelines.context import derive_seed
from pipelines.errors import RecipeError
from pipelines.manifest import digest_of
from pipelines.plan import Selection, legs, plan
from pipelines.recipe import Recipe
from pipelines.sections import DataSettings, ModelSettings
from pipelines.stage import StageSettings


class Tune(StageSettings):
    kind: Literal["tune"] = "tune"
    epochs: int = 1
    uses: ClassVar[tuple[str, ...]] = ("model", "data.labelled")
    accepts: ClassVar[tuple[str, ...]] = ("update",)


class Generate(StageSettings):
    kind: Literal["generate"] = "generate"
    requires: ClassVar[tuple[str, ...]] = ("tune",)


class Filter(StageSettings):
    kind: Literal["filter"] = "filter"
    top: float = 0.2
    like_original: bool = False
    requires: ClassVar[tuple[str, ...]] = ("generate", "tune")

    @property
    def reads_original(self) -> bool:
        return self.like_original


class Update(StageSettings):
    kind: Literal["update"] = "update"
    requires: ClassVar[tuple[str, ...]] = ("filter",)


class Evaluate(StageSettings):
    kind: Literal["evaluate"] = "evaluate"
    gathers: ClassVar[bool] = True


class Report(Evaluate):
    kind: Literal["report"] = "report"  # type: ignore[assignment]
    combines_seeds: ClassVar[bool] = True


ROUND = (Tune, Generate, Filter, Update)


def recipe(stages: tuple[type[StageSettings], ...] = (*ROUND, Evaluate, Report), **changes: Any) -> Recipe:
    values = {
        "name": "demo",
        "seed": 0,
        "rounds": 1,
        "model": ModelSettings.model_validate({"build": {}}),
        "engine": TransformersSettings.model_validate({}),
        "data": {"labelled": DataSettings.model_validate({"task": "easy-vqa"})},
        "stages": [each(name=each.model_fields["kind"].default) for each in stages],
        "arms": {},
        "seeds": [],
    }
    return Recipe.model_construct(**values | changes)


def names(made: Recipe) -> list[str]:
    return [link.name for link in expand(made)]


def reads(made: Recipe) -> Mapping[str, Mapping[str, str]]:
    return {link.name: link.upstream for link in expand(made)}


def test_plain_chain() -> None:
    upstream = reads(recipe())
    assert list(upstream) == ["tune", "generate", "filter", "update", "evaluate", "report"]
    assert upstream["tune"] == {}
    assert upstream["filter"] == {"generate": "generate", "tune": "tune"}
    assert list(upstream["report"]) == ["tune", "generate", "filter", "update", "evaluate"]


def test_arm_copies_from_its_first_override_up_to_evaluate() -> None:
    made = recipe(arms={"random": {"filter.top": 0.5}, "longer": {"tune.epochs": 3}})
    assert names(made) == [
        *["tune", "generate", "filter", "update"],
        *["filter@random", "update@random"],
        *["tune@longer", "generate@longer", "filter@longer", "update@longer"],
        *["evaluate", "report"],
    ]
    upstream = reads(made)
    assert upstream["filter@random"] == {"generate": "generate", "tune": "tune"}, "what comes before is shared"
    assert upstream["update@random"] == {"filter": "filter@random"}
    assert upstream["generate@longer"] == {"tune": "tune@longer"}
    by_name = {link.name: link for link in expand(made)}
    assert by_name["filter@random"].settings.top == 0.5  # type: ignore[attr-defined]
    assert by_name["filter"].settings.top == 0.2  # type: ignore[attr-defined]
    assert by_name["filter@random"].original == "filter"


def test_a_copy_may_read_what_it_copies() -> None:
    upstream = reads(recipe(rounds=2, arms={"random": {"filter.like_original": True}}))
    assert upstream["filter@random"] == {"generate": "generate", "tune": "tune", "original": "filter"}
    assert upstream["filter.2@random"]["original"] == "filter.2"
    alone = recipe(stages=(Tune, Generate))
    alone = alone.model_copy(update={"stages": [*alone.stages, Filter(name="filter", like_original=True)]})
    with pytest.raises(RecipeError, match=r"stages\.filter: only an arm can follow"):
        expand(alone)


def test_rounds_carry_on_within_their_arm() -> None:
    made = recipe(rounds=2, arms={"random": {"filter.top": 0.5}})
    assert names(made) == [
        *["tune", "generate", "filter", "update", "tune.2", "generate.2", "filter.2", "update.2"],
        *["filter@random", "update@random", "tune.2@random", "generate.2@random", "filter.2@random", "update.2@random"],
        *["evaluate", "report"],
    ]
    upstream = reads(made)
    assert upstream["tune.2"] == {"update": "update"}
    assert upstream["tune.2@random"] == {"update": "update@random"}
    assert upstream["filter.2@random"] == {"generate": "generate.2@random", "tune": "tune.2@random"}
    assert all(link.settings.top == 0.5 for link in expand(made) if link.name in ("filter@random", "filter.2@random"))  # type: ignore[attr-defined]


def test_several_of_a_kind_go_on_from_each_other() -> None:
    class Tuning(Tune):
        accepts: ClassVar[tuple[str, ...]] = ("tune", "update")

    stages = [
        Tuning(name="base"),
        Tuning(name="tune"),
        *(each(name=each.model_fields["kind"].default) for each in ROUND[1:]),
    ]
    upstream = reads(recipe(rounds=2).model_copy(update={"stages": stages}))
    assert upstream["base"] == {}
    assert upstream["tune"] == {"tune": "base"}
    assert upstream["generate"] == {"tune": "tune"}
    # In the order of the chain: a training goes on from the last.
    assert list(upstream["base.2"].items()) == [("tune", "tune"), ("update", "update")]
    assert list(upstream["tune.2"].items()) == [("update", "update"), ("tune", "base.2")]


def test_seeds_repeat_all_but_what_combines_them(tmp_path: Path) -> None:
    parts = legs(recipe(seeds=[3, 5]), tmp_path)
    assert [(part.directory.name, part.recipe.seed) for part in parts[:2]] == [("seed-3", 3), ("seed-5", 5)]
    assert [link.name for link in parts[0].links] == ["tune", "generate", "filter", "update", "evaluate"]
    together = parts[2]
    assert together.directory == tmp_path
    assert [link.name for link in together.links] == ["report"]
    stages = ["tune", "generate", "filter", "update", "evaluate"]
    assert list(together.links[0].upstream) == [f"seed-{seed}/{name}" for seed in (3, 5) for name in stages]
    assert len(plan(parts)) == 11


def test_arms_share_their_stage_seed_and_rounds_do_not() -> None:
    assert derive_seed(0, "filter@a") == derive_seed(0, "filter") == derive_seed(0, "filter@b")
    seeds = {derive_seed(seed, name) for seed in range(50) for name in ("filter", "filter.2", "update")}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_digest_follows_what_is_used_and_nothing_else() -> None:
    def digests(made: Recipe) -> dict[str, str]:
        return {name: digest_of(source) for name, source in sources(made, expand(made)).items()}

    plain = digests(recipe(arms={"random": {"filter.top": 0.5}}))

    def changed(made: Recipe) -> set[str]:
        return {name for name, digest in digests(made).items() if digest != plain[name]}

    arms = {"random": {"filter.top": 0.5}}
    assert changed(recipe(arms=arms, engine=TransformersSettings.model_validate({"batch_size": 2}))) == set()
    data = {"labelled": DataSettings.model_validate({"task": "easy-vqa", "take": 1})}
    assert changed(recipe(arms=arms, data=data)) == set(plain)
    assert changed(recipe(arms={"random": {"filter.top": 0.6}})) == {
        *["filter@random", "update@random", "evaluate", "report"]
    }


def test_local_model_files_are_inputs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    made = recipe((Tune,), model=ModelSettings.model_validate({"path": str(tmp_path)}))
    before = sources(made, expand(made))["tune"]
    assert sources(made, expand(made))["tune"] == before
    (tmp_path / "config.json").write_text("{ }")
    assert sources(made, expand(made))["tune"] != before


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (recipe(arms={"a": {}}), r"arms\.a: overrides nothing"),
        (recipe(arms={"a": {"fliter.top": 1}}), r"arms\.a\.fliter\.top: .* did you mean `filter`"),
        (recipe(arms={"a": {"filter": 1}}), r"arms\.a\.filter: .* name a setting"),
        (recipe(arms={"a": {"evaluate.limit": 1}}), r"does not begin with a stage that arms can vary"),
        (recipe(arms={"a": {"filter.tpo": 1}}), r"arms\.a\.filter.*tpo: unknown key; did you mean `top`"),
        (recipe(arms={"a": {"filter.top": "all"}}), r"arms\.a\.filter.*top: .*not 'all'"),
        (recipe((Generate, Tune)), r"stages\.generate: needs a `tune` stage before it"),
        (recipe((Tune, Evaluate, Generate)), r"stages\.generate: comes after `evaluate`"),
    ],
)
def test_chains_that_cannot_be(made: Recipe, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint) as caught:
        expand(made)
    assert "\n" not in str(caught.value)


def test_section_that_is_not_there_is_named(tmp_path: Path) -> None:
    other = {"other": DataSettings.model_validate({"task": "easy-vqa"})}
    with pytest.raises(RecipeError, match=r"stages\.tune: needs `data\.labelled`"):
        legs(recipe(data=other), tmp_path)


def test_selection(tmp_path: Path) -> None:
    parts = legs(recipe(), tmp_path)
    assert Selection().of(parts) == {"tune", "generate", "filter", "update", "evaluate", "report"}
    assert Selection(only="filter").of(parts) == {"filter"}
    assert Selection(start="filter", until="evaluate").of(parts) == {"filter", "update", "evaluate"}
    with pytest.raises(Exception, match="did you mean `filter`"):
        Selection(only="fitler").of(parts)
    with pytest.raises(Exception, match="comes after"):
        Selection(start="filter", until="tune").of(parts)
