"""Mazes against networkx's shortest paths; splits apart in all turns; mistakes in one line."""

from __future__ import annotations

import random
from itertools import pairwise

import networkx
import numpy as np
import pytest

from rewards.puzzles import maze_grid, maze_path
from tasks import maze as task
from tasks.problem import TaskError
from tasks.puzzles.maze import paths
from tasks.puzzles.symmetry import canonical_maze
from tasks.registry import load


def graph_of(free: np.ndarray) -> networkx.Graph:
    grid = networkx.grid_2d_graph(*free.shape)
    grid.remove_nodes_from([node for node in list(grid) if not free[node]])
    return grid


@pytest.mark.parametrize(("height", "width", "walls"), [(6, 6, 0.3), (5, 9, 0.2), (12, 12, 0.4), (3, 4, 0.0)])
def test_steps_and_numbers_of_paths_are_those_of_a_graph(height: int, width: int, walls: float) -> None:
    generator = np.random.default_rng(height)
    for _ in range(10):
        free = generator.random((height, width)) >= walls
        free.flat[start := int(generator.integers(height * width))] = True
        graph = graph_of(free)
        source = divmod(start, width)
        lengths = networkx.single_source_shortest_path_length(graph, source)
        steps, ways = paths(free, start)
        for number in range(height * width):
            cell = divmod(number, width)
            assert steps[number] == lengths.get(cell, -1)
            if cell in lengths:
                several = networkx.all_shortest_paths(graph, source, cell)
                assert ways[number] == sum(1 for _, _ in zip(range(2), several, strict=False))
            else:
                assert ways[number] == 0


@pytest.mark.parametrize(("side", "least", "size"), [(10, None, 40), (6, 3, 20), (30, 35, 4)])
def test_a_maze_has_one_shortest_path_of_the_length_asked_for_and_it_is_the_answer(
    side: int, least: int | None, size: int
) -> None:
    problems = load("maze", "train", side=side, least_steps=least, size=size).problems
    assert len({each.id for each in problems}) == size
    for each in problems:
        signs = np.array([list(line) for line in each.question.split("\n")])
        assert signs.shape == (side, side) and set(signs.flat) <= set("#.SG")
        ends = [tuple(map(int, np.argwhere(signs == end)[0])) for end in "SG"]
        (path,) = networkx.all_shortest_paths(graph_of(signs != "#"), *ends)
        assert len(path) - 1 >= (least or side)
        assert each.kind == task.kind_of(len(path) - 1)
        for cell in path[1:-1]:
            signs[cell] = "o"
        assert each.answer == "\n".join("".join(row) for row in signs)
        assert each.columns == {"maze": each.question} and each.question.strip() == each.question
        assert maze_grid([""], [each.answer], maze=[each.question]) == [1.0]
        assert maze_grid([""], [each.question], maze=[each.question]) == [0.0 if len(path) > 2 else 1.0]
        moves = {(1, 0): "D", (-1, 0): "U", (0, 1): "R", (0, -1): "L"}
        steps = [moves[b[0] - a[0], b[1] - a[1]] for a, b in pairwise(path)]
        assert maze_path([""], ["".join(steps)], maze=[each.question]) == [1.0]


def test_splits_share_no_maze_in_any_turn_and_a_seed_gives_the_same_mazes() -> None:
    """So small that most mazes come more than once."""
    options = {"side": 3, "least_steps": 2}
    forms = []
    for number, split in enumerate(task.SPLITS):
        rows = load("maze", split, size=(60, 10, 10)[number], seed=number, **options)
        found = [canonical_maze("".join(each.question.split()), 3) for each in rows.problems]
        assert len(set(found)) == len(found) and dict(rows.dropped).get("duplicate", 0) > 0
        forms.append(set(found))
    assert not (forms[0] & forms[1] or forms[0] & forms[2] or forms[1] & forms[2])
    train = load("maze", "train", size=60, seed=0, **options).problems
    task._load.cache_clear()
    assert load("maze", "train", size=60, seed=0, **options).problems == train
    assert load("maze", "train", size=30, seed=0, **options).problems == train[:30]
    assert load("maze", "train", size=60, seed=1, **options).problems != train


def test_a_seed_gives_the_same_mazes_on_every_machine() -> None:
    first = load("maze", "train", side=6, size=1).problems[0]
    assert first.answer.split() == ["##Go..", "..#o..", ".ooo.#", ".S#..#", "#...##", "...##."]


def test_density_is_the_share_of_walls() -> None:
    """Before goals are chosen, which leaves out mazes with many free cells a little more often."""
    for density in (0.1, 0.34, 0.5):
        problems = load("maze", "train", side=12, density=density, least_steps=2, size=60).problems
        walls = sum(each.question.count("#") for each in problems) / (60 * 144)
        assert abs(walls - density) < 0.03


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": 2}, "side is a whole number from 3 to 30, not 2"),
        ({"side": "10"}, "side is a whole number"),
        ({"density": 1}, "density is a number from 0 to 1"),
        ({"density": True}, "density is a number"),
        ({"least_steps": 100}, "least_steps is a whole number from 1 to 99, not 100"),
        ({"size": 0}, "size is a whole number of 1 or more"),
        ({"seed": -1}, "seed is a whole number of 0 or more"),
        ({"split": "dev"}, "no split 'dev'; it has train, validation, test"),
        ({"least_steps": 60}, r"60 steps or more, split train: 0 found, then none in 500 tries; 500 asked for"),
        ({"density": 0}, r"0 found, then none in 500 tries"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    options: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "FRUITLESS", 500)
    with pytest.raises(TaskError, match=words) as refused:
        load("maze", **({"split": "train"} | options))  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_a_draw_does_not_depend_on_the_state_of_numpy_or_random() -> None:
    first = load("maze", "test", size=5, side=8).problems
    task._load.cache_clear()
    random.seed(5)
    np.random.seed(5)
    assert load("maze", "test", size=5, side=8).problems == first
