"""The recipe: what a run is made of, read from YAML and checked before anything starts. Imports no torch."""

from __future__ import annotations

import copy
import functools
import operator
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, field_validator

from engines.settings import EngineSettings, TransformersSettings, what_matters
from pipelines.errors import RecipeError
from pipelines.launching.settings import LaunchSettings
from pipelines.sections import DataSettings, ModelSettings
from pipelines.source import Source, assign, nearest
from pipelines.stage import StageSettings
from pipelines.stages import stage_classes
from selfrefine.tracking import Tracker

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""A name that becomes a directory: letters, digits, `-` and `_` (`.` and `@` mark rounds and arms)."""

if TYPE_CHECKING:
    AnyStage = StageSettings
else:
    AnyStage = Annotated[functools.reduce(operator.or_, stage_classes().values()), Field(discriminator="kind")]


class Recipe(BaseModel):
    """A whole recipe. Round and arm copies of the stages are made by `pipelines.chain`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    seed: int = Field(0, ge=0)
    rounds: int = Field(1, ge=1, description="how often the stages before `evaluate` are repeated")
    model: ModelSettings = Field(default_factory=ModelSettings)
    engine: EngineSettings = Field(default_factory=lambda: TransformersSettings.model_validate({}))
    data: dict[str, DataSettings] = Field({}, description="sections by name; an evaluation on named suites needs none")
    launch: LaunchSettings = Field(
        LaunchSettings(), description="processes of a training; finished stages stay so when it changes"
    )
    report_to: list[Tracker] = Field(
        [],
        description="`trackio`, `wandb`, `tensorboard`, one or several: where numbers of trainings go beside "
        "`metrics.jsonl`; no result depends on it",
    )
    stages: list[AnyStage] = Field(min_length=1)
    arms: dict[Name, dict[str, Any]] = Field(
        {}, description="arm -> dotted overrides of stages, such as filter.select.fraction: 0.2"
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(
        [], description="the whole chain once for each; `seed` is then unused"
    )

    @field_validator("stages")
    @classmethod
    def _name_stages(cls, stages: list[StageSettings]) -> list[StageSettings]:
        named = [stage if stage.name else stage.model_copy(update={"name": stage.kind}) for stage in stages]
        names = [stage.name for stage in named]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two stages are called `{name}`; give one of them another `name:`")
            TypeAdapter(Name).validate_python(name)
        return named

    @field_validator("engine", mode="before")
    @classmethod
    def _of_the_usual_kind(cls, given: Any) -> Any:
        return {"kind": TransformersSettings().kind, **given} if isinstance(given, dict) else given

    @field_validator("report_to", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice")
        return seeds

    def dump(self) -> dict[str, Any]:
        """JSON-ready values of all fields, defaults filled in."""
        values = self.model_dump(mode="json", exclude={"stages"})
        values["stages"] = [stage.model_dump(mode="json") for stage in self.stages]
        return values

    def to_yaml(self) -> str:
        """The resolved recipe; reading it back gives an equal recipe."""
        return yaml.safe_dump(self.dump(), sort_keys=False, allow_unicode=True)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe. Raises `RecipeError`: one line for each thing that is wrong."""
    return validate(Source.read(path).override(overrides))


def validate(source: Source) -> Recipe:
    """The recipe of a source. Raises `RecipeError`."""
    try:
        return Recipe.model_validate(source.data)
    except ValidationError as error:
        raise RecipeError("\n".join(_lines(error, Recipe, source))) from None


def override_stage(stage: StageSettings, overrides: Iterable[tuple[str, Any]], what: str) -> StageSettings:
    """The stage with dotted settings replaced. Raises `RecipeError` whose lines begin with `what`."""
    data = stage.model_dump(mode="json", exclude_unset=True)
    for dotted, value in overrides:
        assign(data, dotted.split("."), copy.deepcopy(value), f"{what}.{stage.name}.{dotted}")
    try:
        return type(stage).model_validate(data)
    except ValidationError as error:
        source = Source(data, f"{what}.{stage.name}")
        raise RecipeError("\n".join(_lines(error, type(stage), source))) from None


def section(recipe: Recipe, name: str) -> Any:
    """JSON-ready value of a dotted section such as `model`, `data.labelled` or `engine.kind`."""
    value: Any = recipe.dump() | {"engine": what_matters(recipe.engine)}
    for key in name.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise RecipeError(f"{recipe.name}: a stage needs `{name}`, which the recipe does not have")
        value = value[key]
    return value


def _lines(error: ValidationError, model: Any, source: Source) -> Iterator[str]:
    for each in error.errors(include_url=False):
        keys = _keys_in_data(each["loc"], source.data, keep_last=each["type"] == "missing")
        parent = _type_at(model, each["loc"][:-1])
        yield f"{source.where(keys)}: {_complaint(dict(each), parent)}"


def _complaint(error: Mapping[str, Any], parent: Any) -> str:
    match error["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"unknown key{nearest(str(error['loc'][-1]), _fields(parent))}"
        case "missing" | "missing_argument":
            return "is missing"
        case "union_tag_invalid":
            expected = [tag.strip(" '") for tag in error["ctx"]["expected_tags"].split(",")]
            return f"unknown kind `{error['ctx']['tag']}`{nearest(error['ctx']['tag'], expected)}"
        case "union_tag_not_found":
            return "needs a `kind`"
        case "value_error":
            return str(error["ctx"]["error"])
        case "string_pattern_mismatch":
            return f"use letters, digits, `-` and `_`, not {error['input']!r}"
        case "model_type" | "dict_type":
            keys = ", ".join(sorted(_fields(_step(parent, error["loc"][-1])))) or "names"
            return f"has keys of its own ({keys}), and is no {error['input']!r}"
        case "int_parsing" | "int_type" | "int_from_float":
            return f"needs a whole number, not {error['input']!r}"
        case "float_parsing" | "float_type":
            return f"needs a number, not {error['input']!r}"
        case "bool_parsing" | "bool_type":
            return f"needs true or false, not {error['input']!r}"
        case "list_type":
            return f"needs a list, such as [{error['input']}]"
    message = error["msg"][0].lower() + error["msg"][1:]
    given = error["input"]
    return f"{message}, not {given!r}" if isinstance(given, str | int | float | bool | None) else message


def _keys_in_data(location: Sequence[str | int], data: Any, keep_last: bool) -> list[str | int]:
    """pydantic's path without the tags of unions, which are no keys of the file."""
    keys: list[str | int] = []
    for depth, key in enumerate(location):
        if isinstance(data, list):
            inside = isinstance(key, int) and key < len(data)
        else:
            inside = isinstance(data, dict) and key in data
        if inside:
            keys.append(key)
            data = data[key]
        elif keep_last and depth == len(location) - 1:
            keys.append(key)
    return keys


def _type_at(model: Any, location: Sequence[str | int]) -> Any:
    for key in location:
        model = _step(model, key)
    return model


def _step(annotation: Any, key: str | int) -> Any:
    """The type one step into a type: a field, an element, or the member of a union that a tag names."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _step(get_args(annotation)[0], key)
    if origin in (Union, types.UnionType):
        members = get_args(annotation)
        tagged = [m for m in members if "kind" in _fields(m) and m.model_fields["kind"].default == key]
        return tagged[0] if tagged else next((_step(m, key) for m in members if m is not type(None)), None)
    if origin is not None:
        return get_args(annotation)[-1]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.model_fields[str(key)].annotation if key in annotation.model_fields else annotation
    return None


def _fields(model: Any) -> Iterable[str]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model.model_fields
    if get_origin(model) in (Union, types.UnionType):
        return {name for member in get_args(model) for name in _fields(member)}
    return getattr(model, "__dataclass_fields__", ())
