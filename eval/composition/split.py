"""Training combinations, and what they make of all others: composable from them, or blocked."""

from __future__ import annotations

import heapq
import json
from bisect import bisect_left
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


@dataclass(frozen=True, slots=True)
class _Combos:
    """Problem -> combination, combination -> module -> support, and problems without factors, by reason."""

    graph: Graph
    of: Mapping[str, str]
    supports: Mapping[str, Mapping[str, Support]]
    dropped: Mapping[str, int]

    def blocked(self, training: Collection[str]) -> dict[str, tuple[str, ...]]:
        """What blocks each combination that is not trained on."""
        coverage = Coverage(self.graph)
        for combo in training:
            coverage.add(self.supports[combo])
        chosen = set(training)
        return {combo: coverage.blocked(each) for combo, each in self.supports.items() if combo not in chosen}

    def drawn(self, seed: int) -> list[str]:
        """All combinations, in the order in which they are drawn."""
        return sorted(self.supports, key=lambda combo: uniform("composition train", seed, combo))


def split(problems: Sequence[Problem], factored: Factored, seed: int, n_train: int | None = None) -> Split:
    """Draws `n_train` training combinations by `seed`, or takes few that cover all there is, and labels the others.

    Without `n_train` every unseen combination is composable, and no class `blocked` is asked for. What is drawn depends
    on the seed and on the combination or problem alone, never on order. Raises `TaskError` where a class has fewer than
    `LEAST_COMBOS` combinations, or the graph refuses an item.
    """
    combos = _by_combo(problems, factored)
    if n_train is not None and not 1 <= n_train < len(combos.supports):
        raise TaskError(f"n_train is 1 or more, and less than the {len(combos.supports)} combinations, not {n_train}")
    chosen = cover(combos.graph, combos.supports, seed) if n_train is None else combos.drawn(seed)[:n_train]
    _check(combos, chosen, seed, n_train is None)
    blocked = combos.blocked(chosen)
    held_out = set(_held_out({id: combo for id, combo in combos.of.items() if combo not in blocked}, seed))
    train, test = [], []
    for problem in problems:
        if problem.id not in combos.of:
            continue
        combo = combos.of[problem.id]
        if combo in blocked:
            test.append(Tested(problem, "blocked" if blocked[combo] else "composable", combo, blocked[combo]))
        elif problem.id in held_out:
            test.append(Tested(problem, "iid", combo))
        else:
            train.append(problem)
    return Split(combos.graph, seed, len(chosen), n_train is None, train, test, combos.dropped)


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


def _by_combo(problems: Sequence[Problem], factored: Factored) -> _Combos:
    of: dict[str, str] = {}
    supports: dict[str, dict[str, Support]] = {}
    dropped: Counter[str] = Counter()
    for problem, item in zip(problems, factored.items, strict=True):
        if isinstance(item, str):
            dropped[item] += 1
            continue
        combo = json.dumps([item[root] for root in factored.graph.roots], ensure_ascii=False)
        if combo not in supports:
            supports[combo] = factored.graph.supports(item)
        of[problem.id] = combo
    if not of:
        told = ", ".join(f"{number} {reason}" for reason, number in sorted(dropped.items())) or "there is none"
        raise TaskError(f"no problem has factors: {told}")
    return _Combos(factored.graph, of, supports, dict(dropped))


def _held_out(combos: Mapping[str, str], seed: int) -> Iterator[str]:
    """Of training problems, each with its combination, those that are tested."""
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


def _check(combos: _Combos, chosen: Sequence[str], seed: int, covering: bool) -> None:
    """Raises `TaskError` where a class is too small, with the numbers of training combinations that would do."""
    sizes = Counter(combos.of.values())

    def counts(training: Sequence[str]) -> dict[str, int]:
        blocked = combos.blocked(training)
        number = sum(map(bool, blocked.values()))
        found = (sum(sizes[combo] > 1 for combo in training), len(blocked) - number, number)
        return dict(zip(CLASSES, found, strict=True))

    asked = CLASSES[:2] if covering else CLASSES
    own = counts(chosen)
    short = next((kind for kind in asked if own[kind] < LEAST_COMBOS), None)
    if short is None:
        return
    # More training combinations: more of iid, fewer of blocked, and until these run out more of composable.
    order = combos.drawn(seed)
    every = range(len(order))
    low = bisect_left(every, True, key=lambda n: counts(order[:n])["iid"] >= LEAST_COMBOS)
    high = bisect_left(every, True, key=lambda n: counts(order[:n])["blocked"] < LEAST_COMBOS)
    inside = range(low, high)
    low += bisect_left(inside, True, key=lambda n: counts(order[:n])["composable"] >= LEAST_COMBOS)
    raise TaskError(
        f"class {short} has {own[short]} combinations of the {LEAST_COMBOS} that it needs, with {len(chosen)} to train "
        "on; "
        + (
            f"try n_train from {low} to {high - 1}"
            if low < high
            else "no n_train is enough for all classes: more problems are needed, or modules that read more"
        )
    )
