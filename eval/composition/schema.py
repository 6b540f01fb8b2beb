"""A module graph that a user wrote in YAML.

    roots: [animal, food]              # columns of the table
    modules:
      beak: {parents: [animal], map: {peacock: beak, chicken: beak, fish: mouth}}
      peck: {parents: [beak, food]}    # no map: its value is its parents' values together

A map is as deep as there are parents, in their order, and ends in a value or in a list of those that are possible; a
module without parents has such a list alone. `factors: NAME` takes roots, and modules unless others are given, from
`eval.composition.adapters`. `tie` and `cap` are those of `Graph`. All scalars are text, as they stand.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engines.spelling import did_you_mean
from eval.composition.adapters import ADAPTERS, Factored, of_columns
from eval.composition.graph import CAP, Graph, Module, Values, together
from tasks.problem import Problem, TaskError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModuleSpec(_Strict):
    """A module as it is written."""

    parents: list[str] = []
    map: Any = None


class GraphSpec(_Strict):
    """A file's content."""

    factors: str | None = None
    roots: list[str] = []
    modules: dict[str, ModuleSpec] = {}
    tie: list[list[str]] = []
    cap: int = Field(CAP, ge=1)

    @model_validator(mode="after")
    def _one_source(self) -> GraphSpec:
        if self.factors is None and not (self.roots and self.modules):
            raise ValueError("needs `roots` and `modules`, or `factors`")
        if self.factors is not None and self.roots:
            raise ValueError("`factors` brings its own roots: leave out `roots`, or `factors`")
        if self.factors is not None and self.factors not in ADAPTERS:
            hint = did_you_mean(self.factors, ADAPTERS, f"; there are {', '.join(ADAPTERS)}")
            raise ValueError(f"no factors are called `{self.factors}`{hint}")
        return self


class _Loader(yaml.BaseLoader):
    """Leaves `no`, `1` and `null` the texts that they are in a table, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                mark = node.value[place][0].start_mark
                raise yaml.MarkedYAMLError(problem=f"`{key}` is given twice", problem_mark=mark)
        return super().construct_mapping(node, deep)


def read(path: Path) -> GraphSpec:
    """Reads and checks a file. Raises `TaskError`, one line."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        return GraphSpec.model_validate(data)
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read ({error})") from None
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise TaskError(f"{path}{where}: no valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise TaskError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise TaskError(f"{path}: {_complaint(error)}") from None


def factored(path: Path, problems: Sequence[Problem]) -> Factored:
    """The graph of a file, and what each problem has for its roots. Raises `TaskError`, one line."""
    spec = read(path)
    own = ADAPTERS[spec.factors](problems) if spec.factors else None
    roots = own.graph.roots if own else tuple(spec.roots)
    modules = tuple(_module(name, each, spec, path) for name, each in spec.modules.items())
    try:
        graph = Graph(roots, modules or (own.graph.modules if own else ()), tuple(map(tuple, spec.tie)), spec.cap)
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from None
    return Factored(graph, own.items if own else of_columns(roots, problems))


def _module(name: str, spec: ModuleSpec, graph: GraphSpec, path: Path) -> Module:
    if spec.map is None:
        return Module(name, tuple(spec.parents), together)
    for parent in spec.parents:
        if parent in graph.modules and graph.modules[parent].map is None:
            raise TaskError(f"{path}: modules.{name}.map: its parent `{parent}` has no map, so no values to name")
    table = _table(spec.map, len(spec.parents), f"{path}: modules.{name}.map")
    return Module(name, tuple(spec.parents), lambda values: table.get(values, ()))


def _table(given: Any, depth: int, where: str) -> dict[Values, tuple[str, ...]]:
    """Parents' values -> the possible values."""
    if depth:
        if not isinstance(given, dict) or not given:
            raise TaskError(f"{where}: a mapping {depth} deep is missing, one level for each parent")
        deeper = {key: _table(value, depth - 1, f"{where}.{key}") for key, value in given.items()}
        return {(key, *rest): values for key, table in deeper.items() for rest, values in table.items()}
    values = [given] if isinstance(given, str) else given
    if not isinstance(values, list) or not values or not all(isinstance(each, str) and each for each in values):
        raise TaskError(f"{where}: a value or a list of values is missing, or there are more levels than parents")
    return {(): tuple(values)}


def _complaint(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(key) for key in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ModuleSpec.model_fields if where.startswith("modules.") else GraphSpec.model_fields
        there = f"; there are {', '.join(known)}"
        return f"`{where}` is no key{did_you_mean(str(first['loc'][-1]), known, there)}"
    told = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    return f"{where}: {told}" if where else told
