"""Splits: what is drawn, what covers, what is written, and what the task `table` reads back."""

from __future__ import annotations

import json
import random
import re
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from eval.composition.adapters import Factored, chain_graph
from eval.composition.coverage import Coverage
from eval.composition.files import read, split_files
from eval.composition.graph import Graph, Module
from eval.composition.schema import factored
from eval.composition.split import CLASSES, Split, cover, split
from tasks.problem import Problem, TaskError
from tasks.registry import load

PAIRS = """
roots: [first, second, third]
modules:
  left: {parents: [first, second]}
  right: {parents: [second, third]}
"""


def problems(sides: int = 6, each: int = 4) -> list[Problem]:
    return [
        Problem(
            f"{a}{b}{c}-{n}", f"{a} {b} {c}?", str(n), columns={"first": a, "second": b, "third": c, "weight": n / 2}
        )
        for a, b, c in product(range(sides), repeat=3)
        for n in range(each)
    ]


@pytest.fixture
def graph_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "graph.yaml"
    path.write_text(PAIRS, encoding="utf-8")
    return path


@pytest.fixture
def made(graph_yaml: Path) -> Split:
    rows = problems()
    return split(rows, factored(graph_yaml, rows), seed=0, n_train=60)


def combo_of(problem: Problem) -> str:
    return json.dumps([str(problem.columns[root]) for root in ("first", "second", "third")])


def test_all_problems_are_trained_on_or_tested_once_and_labels_are_true(made: Split) -> None:
    tested = [each.problem.id for each in made.test]
    assert sorted([*tested, *(problem.id for problem in made.train)]) == sorted(problem.id for problem in problems())
    training = {combo_of(problem) for problem in made.train}
    seen = [json.loads(combo) for combo in training]
    assert len(training) == made.n_train == 60
    for each in made.test:
        assert each.combo == combo_of(each.problem)
        a, b, c = json.loads(each.combo)
        missing = (
            *(() if any(t[:2] == [a, b] for t in seen) else ("left",)),
            *(() if any(t[1:] == [b, c] for t in seen) else ("right",)),
        )
        assert each.blocked_by == missing
        assert each.kind == ("iid" if each.combo in training else "blocked" if missing else "composable")
    # One of four problems of a training combination is held out.
    assert sum(each.kind == "iid" for each in made.test) == 60
    assert all(number >= 30 for number in made.combos().values())


def test_a_draw_depends_on_seed_and_combination_and_not_on_order(graph_yaml: Path, made: Split) -> None:
    mixed = problems()
    random.Random(3).shuffle(mixed)
    again = split(mixed, factored(graph_yaml, mixed), seed=0, n_train=60)
    other = split(mixed, factored(graph_yaml, mixed), seed=1, n_train=60)
    ids, ids_again, ids_other = ({problem.id for problem in each.train} for each in (made, again, other))
    assert ids == ids_again != ids_other
    assert {(e.problem.id, e.kind) for e in made.test} == {(e.problem.id, e.kind) for e in again.test}


def test_a_larger_draw_keeps_the_smaller_one_and_unblocks(graph_yaml: Path, made: Split) -> None:
    rows = problems()
    larger = split(rows, factored(graph_yaml, rows), seed=0, n_train=66)
    assert {combo_of(p) for p in made.train} < {combo_of(p) for p in larger.train}
    before = {each.combo: set(each.blocked_by) for each in made.test}
    assert all(set(each.blocked_by) <= before.get(each.combo, set()) for each in larger.test if each.kind != "iid")


def test_a_cover_makes_all_composable_and_is_small(graph_yaml: Path) -> None:
    rows = problems()
    made = split(rows, factored(graph_yaml, rows), seed=0)
    assert made.covering and {each.kind for each in made.test} == {"iid", "composable"}
    # 36 pairs at each of two places, and a combination has one of each.
    assert 36 <= made.n_train <= 40


def test_a_greedy_cover_is_at_most_its_bound_above_the_least() -> None:
    generator = random.Random(0)
    for _ in range(25):
        tables = [{value: generator.sample(range(4), generator.randint(1, 2)) for value in range(4)} for _ in range(2)]
        modules = [
            Module(f"m{n}", ("r", "s")[n : n + 1], lambda values, t=table: t[values[0]])  # type: ignore[misc]
            for n, table in enumerate(tables)
        ]
        graph = Graph(("r", "s"), (*modules, Module("z", ("m0", "m1"))))
        items = {f"{r}{s}": {"r": r, "s": s} for r, s in product(range(4), range(2))}
        supports = {name: graph.supports(item) for name, item in items.items()}

        def covers(chosen: Any, graph: Graph = graph, supports: Any = supports) -> bool:
            coverage = Coverage(graph)
            for name in chosen:
                coverage.add(supports[name])
            return not any(coverage.blocked(each) for each in supports.values())

        least = next(n for n in range(1, 9) if any(map(covers, combinations(supports, n))))
        found = cover(graph, supports, 0)
        assert covers(found) and least <= len(found) <= least + 2


@pytest.mark.parametrize(
    ("n_train", "each", "told"),
    [
        (5, 4, "class iid has 5 combinations of the 30 that it needs, with 5 to train on; try n_train from "),
        (200, 4, "class composable has 16 combinations of the 30"),
        (120, 4, "class blocked has "),
        (60, 1, "class iid has 0 combinations of the 30 that it needs, with 60 to train on; no n_train is enough"),
        (216, 4, "n_train is 1 or more, and less than the 216 combinations, not 216"),
        (0, 4, "not 0"),
    ],
)
def test_a_class_too_small_is_refused_in_a_line(graph_yaml: Path, n_train: int, each: int, told: str) -> None:
    rows = problems(each=each)
    with pytest.raises(TaskError) as refused:
        split(rows, factored(graph_yaml, rows), 0, n_train)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_the_numbers_that_would_do_are_told(graph_yaml: Path) -> None:
    rows = problems()
    given = factored(graph_yaml, rows)
    with pytest.raises(TaskError) as refused:
        split(rows, given, 0, 5)
    low, high = map(int, re.findall(r"n_train from (\d+) to (\d+)", str(refused.value))[0])
    for n_train, does in ((low - 1, False), (low, True), (high, True), (high + 1, False)):
        if does:
            split(rows, given, 0, n_train)
        else:
            with pytest.raises(TaskError):
                split(rows, given, 0, n_train)


def test_what_has_no_factors_is_counted(graph_yaml: Path) -> None:
    rows = [*problems(), Problem("x", "?", "1", columns={"first": 1, "second": [1], "third": 2})]
    rows.append(Problem("y", "?", "1", columns={"first": 1}))
    made = split(rows, factored(graph_yaml, rows), 0, 60)
    assert made.dropped == {"no single value of `second`": 1, "no column `second`": 1}
    with pytest.raises(TaskError, match="no problem has factors: 1 no column `second`, 1 no single"):
        split(rows[-2:], factored(graph_yaml, rows[-2:]), 0)


def test_files_are_read_back_by_the_task_table(tmp_path: Path, graph_yaml: Path) -> None:
    table = tmp_path / "table.jsonl"
    lines = [{"id": p.id, "question": p.question, "answer": p.answer, **p.columns} for p in problems()]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    made = split_files(graph_yaml, str(table), tmp_path / "out", 0, 60)

    train = load("table", source=str(tmp_path / "out/train.jsonl"))
    assert [(p.id, p.kind, p.answer) for p in train.problems] == [(p.id, "train", p.answer) for p in made.train]
    test = load("table", source=str(tmp_path / "out/test.jsonl"))
    assert {p.kind for p in test.problems} == set(CLASSES)
    for problem, each in zip(test.problems, made.test, strict=True):
        assert (problem.id, problem.question, problem.kind) == (each.problem.id, each.problem.question, each.kind)
        assert problem.columns["blocked_by"] == ", ".join(each.blocked_by)
        assert problem.columns["weight"] == each.problem.columns["weight"]

    about = json.loads((tmp_path / "out/split.json").read_text(encoding="utf-8"))
    assert {kind: about["test"][kind]["combos"] for kind in CLASSES} == made.combos()
    assert about["graph"] == ["left reads first and second", "right reads second and third"]
    labels = read(tmp_path / "out/split.json")
    assert {id: label.kind for id, label in labels.problems.items()} == {e.problem.id: e.kind for e in made.test}

    split_files(graph_yaml, str(table), tmp_path / "out", 0, 60)  # the same again
    with pytest.raises(TaskError, match="has the files of another split"):
        split_files(graph_yaml, str(table), tmp_path / "out", 1, 60)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("roots: [a]\nmodule: {}\n", "`module` is no key; did you mean `modules`?"),
        ("roots: [a]\nmodules: {x: {parent: [a]}}\n", "`modules.x.parent` is no key; did you mean `parents`?"),
        ("roots: [a]\n", "needs `roots` and `modules`, or `factors`"),
        ("factors: mazes\n", "no factors are called `mazes`; did you mean `maze`?"),
        ("factors: maze\nroots: [a]\n", "leave out `roots`"),
        ("roots: [a]\nmodules: {x: {parents: [a]}, x: {parents: [a]}}\n", "line 2: no valid YAML: `x` is given twice"),
        ("roots: [a\n", "no valid YAML"),
        ("roots: [a]\nmodules: {x: {parents: [b]}}\n", "`x` reads `b`, which is not known"),
        ("roots: [a]\nmodules: {x: {parents: [a], map: {p: {q: r}}}}\n", "modules.x.map.p: a value"),
        ("roots: [a]\nmodules: {x: {parents: [a], map: p}}\n", "a mapping 1 deep is missing"),
        (
            "roots: [a]\nmodules: {x: {parents: [a]}, y: {parents: [x], map: {p: q}}}\n",
            "modules.y.map: its parent `x` has no map",
        ),
        ("roots: [a]\nmodules: {x: {parents: [a]}}\ncap: none\n", "cap: Input should be a valid integer"),
        ("roots: [nothing]\nmodules: {x: {parents: [nothing]}}\n", "has no column `nothing`"),
    ],
)
def test_a_graph_file_that_cannot_be_is_refused_in_a_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError) as refused:
        factored(path, [Problem("1", "?", "1", columns={"a": 1})])
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_maps_of_a_file_are_those_of_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text(
        "roots: [n, yes]\n"
        "modules:\n"
        "  size: {parents: [n], map: {1: small, 2: [small, large]}}\n"
        "  luck: {map: [good, bad]}\n"
        "  both: {parents: [size, yes], map: {small: {no: x, true: y}, large: {no: x, true: y}}}\n"
        "  end: {parents: [both, luck]}\n",
        encoding="utf-8",
    )
    rows = [
        Problem("1", "?", "1", columns={"n": 2, "yes": True}),
        Problem("2", "?", "1", columns={"n": 1, "yes": "no"}),
    ]
    found = factored(path, rows)
    assert list(found.items) == [{"n": "2", "yes": "true"}, {"n": "1", "yes": "no"}]
    supports = found.graph.supports(found.items[0])  # type: ignore[arg-type]
    assert supports["both"] == {("small", "true"), ("large", "true")}
    assert supports["end"] == {("y", "good"), ("y", "bad")}
    assert supports["luck"] == {()}


def test_a_tie_of_a_file_reaches_the_split(tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    path.write_text("factors: chain\ntie: [[pair1, pair2]]\n", encoding="utf-8")
    chains = [Problem(" ".join(c), "?", "1", columns={"chain": " ".join(c)}) for c in ("abc", "cab")]
    found = factored(path, chains)
    assert found.graph.tie == (("pair1", "pair2"),) and found.graph.modules == chain_graph(3).modules
    coverage = Coverage(found.graph)
    coverage.add(found.graph.supports(found.items[0]))  # type: ignore[arg-type]
    assert coverage.blocked(found.graph.supports(found.items[1])) == ("pair1",)  # type: ignore[arg-type]


def test_no_problem_is_a_line() -> None:
    with pytest.raises(TaskError, match="there is none"):
        split([], Factored(chain_graph(2), []), 0)
