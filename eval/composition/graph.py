"""Module graphs: factors that an item has, modules that read them, and what each module gets to read.

Follows arXiv 2512.10669. `roots` are the factors that are given with an item. A module reads the values of its
`parents`, roots or other modules, and gives one of a finite set of values. The support of a module, for one item, is
the set of tuples that its parents may take together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import TypeAlias

from engines.spelling import did_you_mean
from tasks.problem import TaskError

Values: TypeAlias = tuple[Hashable, ...]
Item: TypeAlias = Mapping[str, Hashable]
"""Root -> its value."""
Support: TypeAlias = frozenset[Values]

CAP = 10_000
"""Worlds of one item: nothing is left out beyond, the item is refused."""


def together(values: Values) -> Collection[Hashable]:
    """A map for modules whose value is told by nothing but their parents' values: those, as they are."""
    return (values,)


@dataclass(frozen=True, slots=True)
class Module:
    """A module: what it reads, and which values it may give for the values of its parents, in their order."""

    name: str
    parents: tuple[str, ...]
    values: Callable[[Values], Collection[Hashable]] = together


@dataclass(frozen=True, slots=True)
class Graph:
    """A module graph.

    `tie`: groups of modules that are one module used at several places, whose supports are pooled; an extension of ours
    to the paper, so none unless asked for. `cap`: the most worlds that an item may have. Raises `TaskError` where a
    name is not known or given twice, parents go in a circle, or tied modules have other numbers of parents.
    """

    roots: tuple[str, ...]
    modules: tuple[Module, ...]
    tie: tuple[tuple[str, ...], ...] = ()
    cap: int = CAP
    _ordered: tuple[Module, ...] = field(init=False, repr=False, compare=False)
    _places: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        named = {module.name: module for module in self.modules}
        names = [*self.roots, *(module.name for module in self.modules)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise TaskError(f"module graph: `{twice[0]}` is named twice")
        if comma := [name for name in names if "," in name]:
            raise TaskError(f"module graph: `{comma[0]}` has a comma, which parts the names of modules in split files")
        for module in self.modules:
            for parent in module.parents:
                if parent not in names:
                    hint = did_you_mean(parent, names, f"; there are {', '.join(names)}")
                    raise TaskError(f"module graph: `{module.name}` reads `{parent}`, which is not known{hint}")
        try:
            order = list(TopologicalSorter({module.name: module.parents for module in self.modules}).static_order())
        except CycleError as error:
            raise TaskError(f"module graph: a circle of modules, {' <- '.join(error.args[1])}") from None
        self._check_ties(named)
        object.__setattr__(self, "_ordered", tuple(named[name] for name in order if name in named))
        object.__setattr__(self, "_places", {name: group[0] for group in self.tie for name in group})

    def supports(self, item: Item) -> dict[str, Support]:
        """The support of each module, by name.

        A module whose parents each have one value, as all have where every map gives one, has a support of one tuple.
        Raises `TaskError` where a root is missing, a map gives no value, or the worlds are more than `cap`.
        """
        worlds = [{root: self._given(item, root) for root in self.roots}]
        found: dict[str, Support] = {}
        for module in self._ordered:
            reads = [tuple(world[parent] for parent in module.parents) for world in worlds]
            found[module.name] = frozenset(reads)
            worlds = self._grown(item, module, worlds, reads)
        return found

    def place(self, name: str) -> str:
        """What a module shares its supports by: its own name, or the first one of its tie."""
        return self._places.get(name, name)

    def lines(self) -> list[str]:
        """The graph in words, a line for each module, and one for each tie."""
        told = [f"{module.name} reads {' and '.join(module.parents) or 'nothing'}" for module in self.modules]
        return told + [f"{', '.join(group)} are one module (supports pooled)" for group in self.tie]

    def _grown(
        self, item: Item, module: Module, worlds: Sequence[dict[str, Hashable]], reads: Sequence[Values]
    ) -> list[dict[str, Hashable]]:
        given = {values: tuple(dict.fromkeys(module.values(values))) for values in dict.fromkeys(reads)}
        if empty := [values for values, gives in given.items() if not gives]:
            raise TaskError(f"module graph: `{module.name}` gives no value for {_told(module.parents, empty[0])}")
        if sum(len(given[values]) for values in reads) > self.cap:
            raise TaskError(
                f"module graph: `{module.name}` brings {_told(self.roots, tuple(item[root] for root in self.roots))} "
                f"to more than {self.cap:,} worlds; let modules give fewer values, or raise `cap`"
            )
        return [{**w, module.name: value} for w, values in zip(worlds, reads, strict=True) for value in given[values]]

    def _given(self, item: Item, root: str) -> Hashable:
        if item.get(root) is None:
            raise TaskError(f"an item has no value for `{root}`, a root of the module graph; it has {dict(item)}")
        return item[root]

    def _check_ties(self, named: Mapping[str, Module]) -> None:
        tied = [name for group in self.tie for name in group]
        for name in tied:
            if name not in named:
                raise TaskError(f"module graph: `tie` names `{name}`, which is no module{did_you_mean(name, named)}")
            if tied.count(name) > 1:
                raise TaskError(f"module graph: `tie` names `{name}` twice")
        for group in self.tie:
            if len({len(named[name].parents) for name in group}) > 1:
                raise TaskError(f"module graph: tied modules {', '.join(group)} have other numbers of parents")


def _told(names: Sequence[str], values: Values) -> str:
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True)) or "nothing"
