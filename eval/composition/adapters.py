"""Where factors come from: sources of roots with a graph of their own, and the columns of any table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.composition import mazes, sudokus, words
from eval.composition.graph import Graph, Module
from tasks.problem import Problem, TaskError

_OPERATOR = re.compile(r"(?<=[\d)])\s*([-+*/×÷−])\s*(?=[(\d]|-\d)")
_SCENE = Graph(
    ("object", "attribute", "relation", "other", "count"),
    (
        Module("thing", ("object", "attribute")),
        Module("place", ("object", "relation")),
        Module("mark", ("relation", "other")),
        Module("number", ("object", "count")),
    ),
)
"""The graph of scenes unless others are given: a choice of ours."""
END = "end"
"""Stands for the operators that a chain shorter than others does not have."""


@dataclass(frozen=True, slots=True)
class Factored:
    """A module graph, and for each problem the values of its roots, or why it has none."""

    graph: Graph
    items: Sequence[Mapping[str, str] | str]


def chain_graph(length: int, tie: bool = False) -> Graph:
    """Chains of operators: a module for each pair of neighbours, as many places as a chain has. `tie` makes them one.

    Raises `TaskError` for chains without neighbours.
    """
    if length < 2:
        raise TaskError(f"a chain of {length} operators has no neighbours: the graph of chains takes 2 or more")
    pairs = tuple(Module(f"pair{place}", (f"op{place}", f"op{place + 1}")) for place in range(1, length))
    names = tuple(pair.name for pair in pairs)
    return Graph(tuple(f"op{place}" for place in range(1, length + 1)), pairs, (names,) if tie else ())


def chain_factors(chain: Sequence[str], length: int) -> dict[str, str]:
    """The roots of `chain_graph(length)` for a chain of operators."""
    return {f"op{place + 1}": chain[place] if place < len(chain) else END for place in range(length)}


def chains(problems: Sequence[Problem]) -> Factored:
    """Operators in the column `chain`, apart by spaces, or else between the numbers of the question."""
    found = [_chain(problem) for problem in problems]
    length = max(map(len, found), default=0)
    if length < 2:
        raise TaskError("no problem has a chain of 2 operators: give it in a column `chain`, apart by spaces")
    return Factored(chain_graph(length), [chain_factors(each, length) if each else "no operator" for each in found])


def scenes(problems: Sequence[Problem]) -> Factored:
    """Questions about scenes, with a column `object`; `attribute`, `relation`, `other` (object) and `count` may lack.

    What a question does not speak of is `none`. The task `scenes` has all of them.
    """
    return Factored(_SCENE, [_scene(problem) for problem in problems])


def of_columns(roots: Sequence[str], problems: Sequence[Problem]) -> list[Mapping[str, str] | str]:
    """The columns of these names (`kind` is the problem's own), as text. Raises `TaskError` where nobody has one."""
    for root in roots:
        if root != "kind" and problems and not any(root in problem.columns for problem in problems):
            there = ", ".join(sorted({name for problem in problems for name in problem.columns})) or "none"
            raise TaskError(f"the table has no column `{root}`, a root of the module graph; it has {there}")
    return [_of_columns(roots, problem) for problem in problems]


def _scene(problem: Problem) -> Mapping[str, str] | str:
    if _text(problem.columns.get("object")) is None:
        return "no `object`"
    return {root: _text(problem.columns.get(root)) or "none" for root in _SCENE.roots}


def _of_columns(roots: Sequence[str], problem: Problem) -> Mapping[str, str] | str:
    found: dict[str, str] = {}
    for root in roots:
        if root != "kind" and root not in problem.columns:
            return f"no column `{root}`"
        value = _text(problem.kind if root == "kind" else problem.columns[root])
        if value is None:
            return f"no single value of `{root}`"
        found[root] = value
    return found


def _text(value: Any) -> str | None:
    """A scalar as JSON writes it, text as it is; None for nothing, for NaN, and for lists and the like."""
    if isinstance(value, str):
        return value or None
    return json.dumps(value) if isinstance(value, bool | int | float) and value == value else None


def _chain(problem: Problem) -> list[str]:
    given = problem.columns.get("chain")
    return given.split() if isinstance(given, str) else _OPERATOR.findall(problem.question)


def _each(graph: Graph, factors: Callable[[Problem], dict[str, str] | str]) -> Callable[[Sequence[Problem]], Factored]:
    return lambda problems: Factored(graph, [factors(problem) for problem in problems])


ADAPTERS: Mapping[str, Callable[[Sequence[Problem]], Factored]] = {
    "chain": chains,
    "maze": _each(mazes.GRAPH, mazes.factors),
    "scene": scenes,
    "sudoku": _each(sudokus.GRAPH, sudokus.factors),
    "words": _each(words.GRAPH, words.factors),
}
"""By the name that a graph's `factors` has."""
