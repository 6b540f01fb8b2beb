"""Training combinations, and what they make of all others: composable from them, or blocked."""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from eval.composition.adapters import Factored
from eval.composition.coverage import Coverage
from eval.composition.graph import Graph, Support
from tasks.draw import uniform
from tasks.problem import Problem, TaskError

CLASSES = ("iid", "composable", "blocked")
"""`iid`: other problems of training combinations. The others are problems of combinations that training has not."""
LEAST_COMBOS = 30
"""Combinations without which a class has no number worth an interval."""
HELD_OUT = 0.2
"""The share of the problems of a training combination that is tested, at least one where there are two."""

_MEND = {
    "iid": "raise n_train, or give combinations more than one problem",
    "composable": "raise n_train",
    "blocked": "lower n_train",
}


@dataclass(frozen=True, slots=True)
class Tested:
    """A problem to test on. `combo` has the values of all roots, as a JSON list; `blocked_by` are the modules why."""

    problem: Problem
    kind: str
    combo: str
    blocked_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """Problems to train on, and to test on, in the order they came in.

    `n_train`: training combinations. `covering`: they were chosen to cover all modules. `dropped`: how many problems
    have no factors, by reason.
    """

    graph: Graph
    seed: int
    n_train: int
    covering: bool
    train: Sequence[Problem]
    test: Sequence[Tested]
    dropped: Mapping[str, int]

    def combos(self) -> dict[str, int]:
        """How many combinations each class has."""
        found = Counter(kind for kind, _ in {(each.kind, each.combo) for each in self.test})
        return {kind: found[kind] for kind in CLASSES}


def split(problems: Sequence[Problem], factored: Factored, seed: int, n_train: int | None = None) -> Split:
    """Draws `n_train` training combinations by `seed`, or takes few that cover all there is, and labels the others.

    Without `n_train` every unseen combination is composable, and no class `blocked` is asked for. What is drawn depends
    on the seed and on the combination or problem alone, never on order. Raises `TaskError` where a class has fewer than
    `LEAST_COMBOS` combinations, or the graph refuses an item.
    """
    graph = factored.graph
    combos, supports, dropped = _by_combo(problems, factored)
    if n_train is not None and not 1 <= n_train < len(supports):
        raise TaskError(f"n_train is 1 or more, and less than the {len(supports)} combinations, not {n_train}")
    chosen = set(cover(graph, supports, seed) if n_train is None else _drawn(supports, seed)[:n_train])
    coverage = Coverage(graph)
    for combo in chosen:
        coverage.add(supports[combo])
    blocked = {combo: coverage.blocked(each) for combo, each in supports.items() if combo not in chosen}
    tested = set(_held_out({id: combo for id, combo in combos.items() if combo in chosen}, seed))
    train, test = [], []
    for problem in problems:
        if problem.id not in combos:
            continue
        combo = combos[problem.id]
        if combo in blocked:
            test.append(Tested(problem, "blocked" if blocked[combo] else "composable", combo, blocked[combo]))
        elif problem.id in tested:
            test.append(Tested(problem, "iid", combo))
        else:
            train.append(problem)
    made = Split(graph, seed, len(chosen), n_train is None, train, test, dropped)
    _check(made)
    return made


def cover(graph: Graph, supports: Mapping[str, Mapping[str, Support]], seed: int) -> list[str]:
    """Few combinations from which all are composable, found greedily: always the one that covers most of the rest.

    `supports`: combination -> module -> support. Among equals `seed` decides. The number is at most ln(elements) + 1
    times the least possible (Chvátal 1979).
    """
    largest = _largest(graph, supports.values())
    wanted = {
        combo: {key for name, support in each.items() if (key := (graph.place(name), support)) in largest}
        for combo, each in supports.items()
    }
    left = set[tuple[str, Support]]().union(*wanted.values())
    heap = [(-len(keys), uniform("composition cover", seed, combo), combo) for combo, keys in wanted.items()]
    heapq.heapify(heap)
    chosen: list[str] = []
    while left:
        # Gains only shrink, so a combination whose gain is still the best after a recount is the best.
        _, tie, combo = heapq.heappop(heap)
        gain = len(wanted[combo] & left)
        if heap and -gain > heap[0][0]:
            heapq.heappush(heap, (-gain, tie, combo))
            continue
        chosen.append(combo)
        left -= wanted[combo]
    return chosen


def _by_combo(
    problems: Sequence[Problem], factored: Factored
) -> tuple[dict[str, str], dict[str, dict[str, Support]], dict[str, int]]:
    """Problem -> combination, combination -> module -> support, and how many problems have no factors, by reason."""
    combos: dict[str, str] = {}
    supports: dict[str, dict[str, Support]] = {}
    dropped: Counter[str] = Counter()
    for problem, item in zip(problems, factored.items, strict=True):
        if isinstance(item, str):
            dropped[item] += 1
            continue
        combo = json.dumps([item[root] for root in factored.graph.roots], ensure_ascii=False)
        if combo not in supports:
            supports[combo] = factored.graph.supports(item)
        combos[problem.id] = combo
    if not combos:
        told = ", ".join(f"{number} {reason}" for reason, number in sorted(dropped.items())) or "there is none"
        raise TaskError(f"no problem has factors: {told}")
    return combos, supports, dict(dropped)


def _drawn(combos: Collection[str], seed: int) -> list[str]:
    return sorted(combos, key=lambda combo: uniform("composition train", seed, combo))


def _held_out(combos: Mapping[str, str], seed: int) -> Iterator[str]:
    """Problems of training combinations that are tested."""
    members: defaultdict[str, list[str]] = defaultdict(list)
    for problem, combo in combos.items():
        members[combo].append(problem)
    for each in members.values():
        if len(each) > 1:
            each.sort(key=lambda problem: uniform("composition iid", seed, problem))
            yield from each[: max(1, round(HELD_OUT * len(each)))]


def _largest(graph: Graph, supports: Collection[Mapping[str, Support]]) -> set[tuple[str, Support]]:
    """The supports that no larger one contains, each with its module's place."""
    places: defaultdict[str, set[Support]] = defaultdict(set)
    for each in supports:
        for name, support in each.items():
            places[graph.place(name)].add(support)
    found: set[tuple[str, Support]] = set()
    for place, every in places.items():
        several = [support for support in every if len(support) > 1]
        inside = frozenset[object]().union(*several)
        for support in every:
            if not (support <= inside if len(support) == 1 else any(support < other for other in several)):
                found.add((place, support))
    return found


def _check(made: Split) -> None:
    for kind, number in made.combos().items():
        if number < LEAST_COMBOS and not (kind == "blocked" and made.covering):
            raise TaskError(
                f"class {kind} has {number} combinations of the {LEAST_COMBOS} that it needs, with {made.n_train} to "
                f"train on: {_MEND[kind]}"
            )
