"""Stressed problems: harder, with the answer that they had, and touched only where they may be."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from eval.composition.mazes import route
from eval.stress import boards, images, wording
from eval.stress.grid import CLEAN, Cell, Grid
from eval.stress.stress import MOST, stress, stress_problems
from rewards.puzzles import maze_grid, maze_path, sudoku
from tasks.problem import Problem, TaskError
from tasks.puzzles.grid import LEVELS
from tasks.puzzles.solver import grade, solve
from tasks.registry import load

CLIPS = Problem(
    "clips",
    "Natalia sold 48 clips in April. She sold half as many clips in May. The shop of Mr. Ford is closed on Sundays. "
    "How many clips did Natalia sell altogether?",
    "72",
)
SENTENCES = 4


def picture(folder: Path, region: Any, size: tuple[int, int] = (40, 30)) -> Problem:
    path = folder / "picture.png"
    grey = np.random.default_rng(0).integers(90, 160, (size[1], size[0], 3), np.uint8)
    Image.fromarray(grey).save(path)
    columns = {} if region is None else {"region": region}
    return Problem("p", "What is in the corner?", "a cup", image=str(path), cluster="c", columns=columns)


def pixels(problem: Problem) -> np.ndarray:
    assert problem.image is not None
    with Image.open(problem.image) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def added(problem: Problem, harder: Problem) -> list[str]:
    """The sentences that were put in; what is left is the question itself."""
    question, found = harder.question, []
    for sentence in re.findall(r"(?:The|A|An) [^.?!]*?\. ", harder.question):
        if sentence not in problem.question:
            question = question.replace(sentence, "", 1)
            found.append(sentence.strip())
    assert question == problem.question
    return found


@pytest.mark.parametrize(("scope", "severity"), [(0, 3), (0.0, 0), (0.7, 0)])
def test_without_scope_or_severity_a_problem_is_itself(scope: float, severity: int, tmp_path: Path) -> None:
    for problem in (CLIPS, picture(tmp_path, [[0, 0, 9, 9]]), load("maze", "test", side=8, size=1).problems[0]):
        assert stress(problem, scope, severity, 0) is problem


@pytest.mark.parametrize("severity", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_sentences_are_added_before_the_one_that_asks(severity: int, seed: int) -> None:
    harder = stress(CLIPS, 1.0, severity, seed)
    sentences = added(CLIPS, harder)
    assert len(sentences) == SENTENCES and harder.answer == CLIPS.answer and harder.id == CLIPS.id
    assert harder.question.endswith("How many clips did Natalia sell altogether?")
    # "She" still follows what it speaks of, and Mr. stays before his name.
    assert "April. She sold" in harder.question and "Mr. Ford" in harder.question


@pytest.mark.parametrize("seed", range(8))
def test_severity_is_how_misleading_the_sentences_are(seed: int) -> None:
    numbers = {"48", "72"}
    for severity, named, counted in ((1, False, False), (2, True, False), (3, True, True)):
        for sentence in added(CLIPS, stress(CLIPS, 1.0, severity, seed)):
            assert bool(re.search("Natalia|Ford", sentence)) == named
            assert bool(re.search(r"\d", sentence)) == counted
            for number in re.findall(r"\d+", sentence):
                # Of the size of those that there are, and none of them, nor the answer.
                assert number not in numbers and 24 <= int(number) <= 82
            assert "clip" not in sentence


def test_a_smaller_scope_has_some_of_the_same_sentences() -> None:
    found = [added(CLIPS, stress(CLIPS, scope, 3, 0)) for scope in (0.05, 0.5, 1.0)]
    assert list(map(len, found)) == [1, 2, 4]
    assert set(found[0]) < set(found[1]) < set(found[2])
    assert stress(CLIPS, 1.0, 3, 0) == stress(CLIPS, 1.0, 3, 0) != stress(CLIPS, 1.0, 3, 1)


@pytest.mark.parametrize(
    "question",
    [
        'Reverse the words. Use this text: "A cat sat. The dog ran." What is it?',
        "A train of 3 cars.\nHow many?\n(A) 3",
    ],
)
def test_nothing_is_put_into_quotes_or_between_lines(question: str) -> None:
    for seed in range(8):
        assert stress(Problem("q", question, "3"), 1.0, 1, seed).question.endswith(question)


def test_a_question_that_names_nothing_takes_severity_1_alone() -> None:
    bare = Problem("sum", "Calculate 3 + 4.", "7")
    assert added(bare, stress(bare, 1.0, 1, 0))
    with pytest.raises(TaskError, match="`sum`: its question names nobody and nothing"):
        stress(bare, 1.0, 2, 0)


def test_more_sentences_than_there_are_repeat_only_after_all() -> None:
    long = Problem("long", "Eva sings. " * 70 + "What does Eva do?", "she sings")
    sentences = added(long, stress(long, 1.0, 1, 0))
    every = len(wording.PLACES) * len(wording.FACTS)
    assert len(sentences) == 71 and len(set(sentences[:every])) <= every
    assert len(set(sentences)) == every


REGION = [[4, 6, 14, 20], [12, 10, 30, 16]]


@pytest.mark.parametrize("scope", [0.1, 0.5, 1.0])
def test_noise_lies_outside_of_the_region_on_its_share_of_the_rest(tmp_path: Path, scope: float) -> None:
    problem = picture(tmp_path, REGION)
    harder = stress(problem, scope, 3, 0, folder=tmp_path / "new")
    free = np.ones((30, 40), bool)
    for left, top, right, bottom in REGION:
        free[top:bottom, left:right] = False
    changed = (pixels(problem) != pixels(harder)).any(2)
    assert not changed[~free].any()
    # Noise rounds to nothing in a few pixels.
    assert 0.98 * scope * free.sum() <= changed.sum() <= np.ceil(scope * free.sum())
    assert (harder.id, harder.answer, harder.cluster) == (problem.id, problem.answer, problem.cluster)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [Path(str(harder.image)).name]


def test_a_smaller_scope_is_inside_and_a_lower_severity_is_less(tmp_path: Path) -> None:
    problem = picture(tmp_path, REGION)
    changes = {
        cell: pixels(stress(problem, *cell, 0, folder=tmp_path)) - pixels(problem)
        for cell in ((0.2, 1), (0.6, 1), (0.6, 2))
    }
    sparse, mild, severe = changes.values()
    touched = (sparse != 0).any(2)
    assert (sparse[touched] == mild[touched]).all() and touched.sum() < (mild != 0).any(2).sum()
    assert ((severe == 0).all(2) <= (mild == 0).all(2)).all()
    assert abs(severe).sum() > 1.3 * abs(mild).sum()


def test_noise_has_its_deviation() -> None:
    generator = np.random.default_rng(0)
    mask = np.zeros((50, 50), bool)
    mask[:25] = True
    noise = images.noisy(np.zeros((50, 50, 3)), mask, 0.5, generator)
    assert (noise[25:] == 0).all() and noise[:25].std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    ("region", "told"),
    [
        (None, "has no column `region`"),
        ([], "has no column `region`"),
        ([[0, 0, 41, 5]], "no box [left, top, right, bottom] of whole pixels in an image of 40 by 30"),
        ([[3, 3, 3, 9]], "no box"),
        ([[0.5, 1, 2, 3]], "no box"),
        ([[0, 0, 40, 30]], "its region is all of the image"),
    ],
)
def test_an_image_without_a_usable_region_is_refused_in_a_line(tmp_path: Path, region: Any, told: str) -> None:
    with pytest.raises(TaskError) as refused:
        stress(picture(tmp_path, region), 0.5, 1, 0, folder=tmp_path / "new")
    assert told in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "new").exists()


def test_images_need_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="name a folder"):
        stress(picture(tmp_path, REGION), 0.5, 1, 0)


def test_a_maze_with_false_ways_has_the_same_path() -> None:
    for problem in load("maze", "test", side=10, size=12).problems:
        lines = problem.question.split("\n")
        path, before = route(lines), set[tuple[int, int]]()
        for scope, severity in itertools.product((0.3, 1.0), (1, 3)):
            harder = stress(problem, scope, severity, 0)
            grid = harder.question.split("\n")
            assert route(grid) == path and harder.columns["maze"] == harder.question
            assert maze_grid([], [harder.answer], maze=[harder.question]) == [1.0]
            opened = {(r, c) for r in range(10) for c in range(10) if grid[r][c] != lines[r][c]}
            assert opened and all(lines[r][c] == "#" and grid[r][c] == "." for r, c in opened)
            if (scope, severity) == (0.3, 1):
                before = opened
            if (scope, severity) == (1.0, 1):
                assert before < opened
                # Ways of one cell touch no other one.
                assert all(abs(a - c) + abs(b - d) > 1 for (a, b), (c, d) in itertools.combinations(opened, 2))


def test_more_severe_mazes_have_longer_false_ways() -> None:
    def longest(cells: set[tuple[int, int]]) -> int:
        sizes, left = [0], set(cells)
        while left:
            group, edge = 0, [left.pop()]
            while edge:
                r, c = edge.pop()
                group += 1
                for near in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
                    if near in left:
                        left.remove(near)
                        edge.append(near)
            sizes.append(group)
        return max(sizes)

    found: dict[int, list[int]] = {severity: [] for severity in range(1, MOST["board"] + 1)}
    for problem in load("maze", "test", side=12, density=0.4, size=10).problems:
        lines = problem.question.split("\n")
        for severity, lengths in found.items():
            grid = stress(problem, 1.0, severity, 0).question.split("\n")
            lengths.append(longest({(r, c) for r in range(12) for c in range(12) if grid[r][c] != lines[r][c]}))
            assert lengths[-1] <= 2 ** (severity - 1)
    means = [np.mean(lengths) for lengths in found.values()]
    assert means == sorted(set(means))


def test_a_maze_inside_words_and_moves_as_an_answer() -> None:
    maze = "S.#\n#.#\n#.G"
    told = Problem("w", f"Walk:\n{maze}\nfrom S to G.", "right down down right", columns={"maze": maze})
    harder = stress(told, 1.0, 2, 0)
    assert harder.answer == told.answer and str(harder.columns["maze"]) in harder.question
    assert maze_path([], [harder.answer], maze=[str(harder.columns["maze"])]) == [1.0]
    with pytest.raises(TaskError, match="does not show the maze"):
        stress(Problem("w", "Walk.", "down", columns={"maze": maze}), 1.0, 2, 0)
    with pytest.raises(TaskError, match="no cell can be changed"):
        stress(Problem("w", "S.G", "right", columns={"maze": "S.G"}), 1.0, 2, 0)
    with pytest.raises(TaskError, match="not exactly one shortest path"):
        stress(Problem("w", "S.\n.G", "right", columns={"maze": "S.\n.G"}), 1.0, 2, 0)


def test_a_sudoku_with_fewer_clues_has_the_same_solution_and_is_no_harder_than_said() -> None:
    gone: dict[tuple[float, int], list[int]] = {(0.5, 1): [], (1.0, 1): [], (1.0, 3): []}
    for problem in load("sudoku", "test", side=9, size=6).problems:
        clues = str(problem.columns["puzzle"])
        for (scope, severity), numbers in gone.items():
            harder = stress(problem, scope, severity, 0)
            cells = list(map(int, str(harder.columns["puzzle"])))
            assert all(new in (0, old) for new, old in zip(cells, map(int, clues), strict=True))
            assert len(solve(cells, 9)) == 1
            assert sudoku([], [harder.answer], puzzle=[str(harder.columns["puzzle"])]) == [1.0]
            assert LEVELS.index(grade(cells, 9).level) < severity
            numbers.append(cells.count(0) - clues.count("0"))
    half, mild, severe = gone.values()
    assert all(0 < few == max(1, round(0.5 * all_)) for few, all_ in zip(half, mild, strict=True))
    assert sum(mild) < sum(severe)


def test_a_sudoku_that_can_lose_no_clue_is_refused() -> None:
    problem = load("sudoku", "test", side=9, level="easy", size=1).problems[0]
    with pytest.raises(TaskError, match="no cell can be changed at this severity"):
        stress(problem, 1.0, 4, 0)
    many = load("sudoku", "test", side=4, unique=False, least_empty=12, most_empty=12, size=1).problems[0]
    with pytest.raises(TaskError, match="no sudoku with one solution"):
        boards.stress(many, 1.0, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"scope": 1.2}, "scope is from 0 to 1"),
        ({"severity": 4}, "severity from 0 to 3"),
        ({"severity": 1.5}, "severity from 0 to 3"),
        ({"severity": True}, "severity from 0 to 3"),
        ({"of": "sound"}, "`of` is one of text, image, board"),
        ({"of": "board"}, "has no board"),
    ],
)
def test_a_stress_that_cannot_be_is_refused_in_a_line(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(TaskError) as refused:
        stress(CLIPS, **{"scope": 0.5, "severity": 1, "seed": 0} | arguments)
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_sentences_do_not_go_into_a_board() -> None:
    with pytest.raises(TaskError, match="stress its board"):
        stress(load("maze", "test", side=8, size=1).problems[0], 0.5, 1, 0, of="text")


@pytest.mark.parametrize(
    ("scopes", "severities"), [((0.5,), (1, 2)), ((0.5, 1.5), (1, 2)), ((0.0, 0.5), (1, 2)), ((0.5, 1.0), (2, 1))]
)
def test_a_grid_that_has_no_corners_is_refused(scopes: Sequence[float], severities: Sequence[int]) -> None:
    with pytest.raises(TaskError, match="two or more rising numbers above 0"):
        Grid(tuple(scopes), tuple(severities))


def test_every_cell_has_the_same_problems_and_what_is_refused_is_counted() -> None:
    bare = [Problem(f"sum{n}", f"Calculate {n} + 4.", str(n + 4)) for n in range(3)]
    found = stress_problems([bare[0], CLIPS, *bare[1:]], Grid((0.5, 1.0), (1, 3)), 0)
    assert [cell for cell, _ in found.cells] == [
        CLEAN, Cell(0.5, 1), Cell(0.5, 3), Cell(1.0, 1), Cell(1.0, 3),
    ]  # fmt: skip
    assert all([problem.id for problem in problems] == ["clips"] for _, problems in found.cells)
    assert found.cells[0][1][0] is CLIPS
    assert sum(found.dropped.values()) == 3 and len(found.dropped) == 1
    with pytest.raises(TaskError, match="`sum0`: its question names nobody"):
        stress_problems(bare, Grid((0.5, 1.0), (1, 3)), 0)
    with pytest.raises(TaskError, match="severity from 0 to 3"):
        stress_problems([CLIPS], Grid((0.5, 1.0), (1, 4)), 0)
    with pytest.raises(TaskError, match="there is no problem"):
        stress_problems([], Grid(), 0)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_small_network_is_hurt_by_wide_noise_and_not_by_narrow_noise() -> None:
    """The check of the grid on a model: the rise in error from mild to severe noise, by the block's side."""
    datasets = pytest.importorskip("sklearn.datasets")
    networks = pytest.importorskip("sklearn.neural_network")
    x, y = datasets.load_digits(return_X_y=True)
    x = x.reshape(-1, 8, 8) / 16
    generator = np.random.default_rng(0)
    order = generator.permutation(len(x))
    train, test = order[:1200], order[1200:]
    model = networks.MLPClassifier((64,), max_iter=60, random_state=0).fit(x[train].reshape(-1, 64), y[train])

    def error(side: int, deviation: float) -> float:
        noise = np.random.default_rng(1)
        touched = np.zeros((len(test), 8, 8), bool)
        for mask in touched:
            row, column = noise.integers(0, 9 - side, 2)
            mask[row : row + side, column : column + side] = True
        harder = [images.noisy(x[n], mask, deviation, noise) for n, mask in zip(test, touched, strict=True)]
        return 1 - float(model.score(np.reshape(harder, (-1, 64)), y[test]))

    low, high = images.NOISE[0], images.NOISE[-1]
    assert (low, high) == (0.25, 2.0)
    assert error(1, high) - error(1, low) <= 0.2
    assert error(8, high) - error(8, low) >= 0.4
