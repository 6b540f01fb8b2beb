"""The test of composability against its definition, by brute force, and against shortcuts that claim too much."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pytest

from eval.composition.coverage import Coverage
from eval.composition.graph import Graph, Module, Support
from tasks.problem import TaskError

Item = dict[str, Any]


def mapping(table: Mapping[tuple[Any, ...], Sequence[Any]]) -> Any:
    return lambda values: table[values]


def by_definition(graph: Graph, item: Item) -> dict[str, Support]:
    """Supports from all assignments of all values to all modules, of which those that the maps allow are worlds."""
    every = {module.name: set[Any]() for module in graph.modules}
    for _ in graph.modules:  # a module's values, from all that its parents may have
        for module in graph.modules:
            options = [every[p] if p in every else {item[p]} for p in module.parents]
            every[module.name] |= {value for reads in product(*options) for value in module.values(reads)}
    found: dict[str, set[Any]] = {module.name: set() for module in graph.modules}
    for values in product(*every.values()):
        world = {**item, **dict(zip(every, values, strict=True))}
        reads = {module.name: tuple(world[p] for p in module.parents) for module in graph.modules}
        if all(world[module.name] in module.values(reads[module.name]) for module in graph.modules):
            for name, each in reads.items():
                found[name].add(each)
    return {name: frozenset(each) for name, each in found.items()}


def blocked_by_definition(graph: Graph, training: Sequence[Item], item: Item) -> tuple[str, ...]:
    seen = [by_definition(graph, each) for each in training]
    own = by_definition(graph, item)
    return tuple(m.name for m in graph.modules if not any(own[m.name] <= each[m.name] for each in seen))


def blocked(graph: Graph, training: Sequence[Item], item: Item) -> tuple[str, ...]:
    coverage = Coverage(graph)
    for each in training:
        coverage.add(graph.supports(each))
    return coverage.blocked(graph.supports(item))


def random_graph(generator: random.Random, most: int) -> Graph:
    """Two or three roots of three values and up to four modules; a map gives 1 to `most` of three values."""
    roots = tuple("abc"[: generator.randint(2, 3)])
    names = [*roots]
    modules = []
    for name in "wxyz"[: generator.randint(1, 4)]:
        parents = tuple(generator.sample(names, generator.randint(0, min(3, len(names)))))
        table = {
            reads: tuple(generator.sample(range(3), generator.randint(1, most)))
            for reads in product(range(3), repeat=len(parents))
        }
        modules.append(Module(name, parents, mapping(table)))
        names.append(name)
    generator.shuffle(modules)
    return Graph(roots, tuple(modules))


def random_items(graph: Graph, generator: random.Random, number: int) -> list[Item]:
    return [{root: generator.randrange(3) for root in graph.roots} for _ in range(number)]


@pytest.mark.parametrize(("most", "graphs"), [(1, 200), (2, 60)])
def test_what_blocks_is_what_the_definition_says(most: int, graphs: int) -> None:
    generator = random.Random(most)
    kinds = set()
    for _ in range(graphs):
        graph = random_graph(generator, most)
        training = random_items(graph, generator, generator.randint(1, 5))
        for item in random_items(graph, generator, 4):
            assert graph.supports(item) == by_definition(graph, item)
            found = blocked(graph, training, item)
            assert found == blocked_by_definition(graph, training, item)
            kinds.add(bool(found))
            assert most > 1 or all(len(support) == 1 for support in graph.supports(item).values())
    assert kinds == {True, False}


def test_training_items_are_composable_and_more_of_them_block_nothing_new() -> None:
    generator = random.Random(5)
    for _ in range(60):
        graph = random_graph(generator, 2)
        training = random_items(graph, generator, 4)
        for item in training:
            assert blocked(graph, training, item) == ()
        for item in random_items(graph, generator, 3):
            fewer, more = blocked(graph, training[:2], item), blocked(graph, training, item)
            assert set(more) <= set(fewer)


def test_a_further_parent_unblocks_nothing() -> None:
    generator = random.Random(6)
    for _ in range(60):
        graph = random_graph(generator, 2)
        wider = tuple(
            Module(m.name, (*m.parents, graph.roots[0]), lambda values, own=m.values: own(values[:-1]))  # type: ignore[misc]
            if generator.random() < 0.5 and graph.roots[0] not in m.parents
            else m
            for m in graph.modules
        )
        training, item = random_items(graph, generator, 4), random_items(graph, generator, 1)[0]
        assert set(blocked(graph, training, item)) <= set(blocked(Graph(graph.roots, wider), training, item))


def test_the_union_over_training_items_would_claim_too_much() -> None:
    x = Module("x", ("r",), mapping({("mix",): (0, 1), ("zero",): (0,), ("one",): (1,)}))
    graph = Graph(("r", "q"), (x, Module("z", ("x", "q"))))
    training = [{"r": "mix", "q": 0}, {"r": "zero", "q": 1}, {"r": "one", "q": 1}]
    query = {"r": "mix", "q": 1}
    union = frozenset[Any]().union(*(graph.supports(item)["z"] for item in training))
    assert graph.supports(query)["z"] <= union
    assert blocked(graph, training, query) == ("z",)


def test_the_product_of_the_parents_supports_would_claim_too_much() -> None:
    z = Module("z", (), lambda values: (0, 1))
    a = Module("a", ("k", "z"), lambda values: (0 if values[0] == 0 else values[1],))
    b = Module("b", ("n", "z"), lambda values: ((0, values[1], 1 - values[1])[values[0]],))
    graph = Graph(("k", "n"), (z, a, b, Module("c", ("a", "b"))))
    training = [{"k": 1, "n": 0}, {"k": 0, "n": 1}, {"k": 2, "n": 2}]
    query = {"k": 1, "n": 1}

    def marginals(item: Item) -> tuple[set[Any], set[Any]]:
        support = graph.supports(item)["c"]
        return {first for first, _ in support}, {second for _, second in support}

    own = marginals(query)
    assert any(all(mine <= theirs for mine, theirs in zip(own, marginals(t), strict=True)) for t in training)
    assert blocked(graph, training, query) == ("c",)


PEACOCK = [("peacock", "none"), ("chicken", "rice"), ("fish", "none")]
BEAK = Module("beak", ("A",), mapping({("peacock",): ("beak",), ("chicken",): ("beak",), ("fish",): ("mouth",)}))
TAIL = Module("tail", ("A",), mapping({("peacock",): ("colourful",), ("chicken",): ("plain",), ("fish",): ("fin",)}))


@pytest.mark.parametrize(
    ("reads", "expected"),
    [(("beak", "B"), [(), ("peck",), ()]), (("A", "B"), [("peck",), ("peck",), ("peck",)])],
)
def test_a_peacock_can_be_seen_to_peck_rice_before_it_has(
    reads: tuple[str, str], expected: list[tuple[str, ...]]
) -> None:
    # The example of arXiv 2512.10669: chickens have beaks as well.
    graph = Graph(("A", "B"), (BEAK, TAIL, Module("peck", reads)))
    training = [{"A": animal, "B": food} for animal, food in PEACOCK]
    queries = [("peacock", "rice"), ("fish", "rice"), ("chicken", "none")]
    assert [blocked(graph, training, {"A": animal, "B": food}) for animal, food in queries] == expected


def test_tied_modules_share_what_they_have_seen() -> None:
    pairs = (Module("first", ("a", "b")), Module("second", ("b", "c")))
    apart, tied = Graph(tuple("abc"), pairs), Graph(tuple("abc"), pairs, (("first", "second"),))
    training = [{"a": 1, "b": 2, "c": 3}]
    turned = {"a": 2, "b": 3, "c": 1}
    assert blocked(apart, training, turned) == ("first", "second")
    assert blocked(tied, training, turned) == ("second",)
    assert blocked(tied, [*training, {"a": 9, "b": 3, "c": 1}], turned) == ()


def test_worlds_over_the_cap_are_an_error_that_names_the_module_and_the_item() -> None:
    coins = tuple(Module(f"coin{number}", (), lambda values: (0, 1)) for number in range(12))
    graph = Graph(("r",), (*coins, Module("sum", tuple(coin.name for coin in coins))), cap=1024)
    with pytest.raises(TaskError, match=r"`coin10` brings r=7 to more than 1,024 worlds"):
        graph.supports({"r": 7})
    enough = Graph(("r",), graph.modules, cap=4096)
    assert len(enough.supports({"r": 7})["sum"]) == 4096


@pytest.mark.parametrize(
    ("modules", "tie", "told"),
    [
        ([Module("a", ("r",))], (), "`a` is named twice"),
        ([Module("x", ("roort",))], (), "`x` reads `roort`, which is not known"),
        ([Module("x", ("y",)), Module("y", ("x",))], (), "a circle of modules, "),
        ([Module("x, y", ("r",))], (), "has a comma"),
        ([Module("x", ("r",))], (("x", "w"),), "`tie` names `w`, which is no module"),
        ([Module("x", ("r",)), Module("y", ("r",))], (("x", "y"), ("x",)), "`tie` names `x` twice"),
        ([Module("x", ("r",)), Module("y", ("r", "x"))], (("x", "y"),), "other numbers of parents"),
    ],
)
def test_a_graph_that_cannot_be_is_refused_in_a_line(
    modules: list[Module], tie: tuple[tuple[str, ...], ...], told: str
) -> None:
    with pytest.raises(TaskError) as refused:
        Graph(("r", "a"), tuple(modules), tie)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_an_item_without_a_root_and_a_map_without_a_value_are_named() -> None:
    graph = Graph(("A", "B"), (Module("beak", ("A",), lambda values: ()),))
    with pytest.raises(TaskError, match="no value for `B`"):
        graph.supports({"A": "fox"})
    with pytest.raises(TaskError, match="`beak` gives no value for A=fox"):
        graph.supports({"A": "fox", "B": "rice"})
