"""Worked answers are right where they should be, and wrong as often as they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import worded
from benchmarks.demonstrations import HASTY, SUMS, grids, hastily, sums, worded_grids, worked, write
from pipelines.cli import app
from rewards.maths import number
from rewards.puzzles import sudoku
from selfrefine.build import BuildSpec, build_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (
            "State the final answer: 32 - 25 + 51 - 97 =",
            "32 - 25 = 7\n7 + 51 = 58\n58 - 97 = -39\n<answer>-39</answer>",
        ),
        ("Sum: 2 + 1 =", "2 + 1 = 3\n<answer>3</answer>"),
    ],
)
def test_a_sum_is_worked_line_by_line(question: str, answer: str) -> None:
    assert worked(question) == answer


def test_sums_end_in_what_the_task_calls_right_and_each_line_holds() -> None:
    from tasks.registry import load

    gold = {problem.id: problem.answer for problem in load("rg:chain_sum", size=40, seed=1, **SUMS).problems}
    rows = list(sums(size=40))
    assert len(rows) == 40
    ends = [row["answer"].rpartition("<answer>")[2].removesuffix("</answer>") for row in rows]
    assert number([""] * 40, ends, answer=[gold[row["id"]] for row in rows]) == [1.0] * 40
    for row in rows:
        for line in row["answer"].split("\n")[:-1]:
            left, right = line.split(" = ")
            first, sign, second = left.rsplit(" ", 2)
            assert int(first) + int(sign + second) == int(right)


def test_the_hasty_solver_never_looks_back() -> None:
    question = [list(row) for row in ("__34", "3_1_", "____", "____")]
    # Only clues count for a column, so that it writes a digit twice; and where nothing goes, what the row lacks.
    assert hastily(question) == [list(row) for row in ("1234", "3214", "1243", "1243")]


def test_grids_mix_the_two_solvers_in_training_only() -> None:
    train, test = list(grids("train", 1500)), list(grids("test", 300))
    for rows, all_right in ((train, False), (test, True)):
        answers = [row["answer"] for row in rows]
        right = sudoku([""] * len(rows), answers, puzzle=[row["puzzle"] for row in rows])
        assert all(value == 1 for value in right) is all_right
        assert sudoku([""] * len(rows), [r["truth"] for r in rows], puzzle=[r["puzzle"] for r in rows]) == [1] * len(
            rows
        )
    hasty = differ = 0
    for row in train:
        careless = hastily([line.split(" ") for line in row["question"].split("\n")])
        cells = zip("\n".join(" ".join(each) for each in careless), row["truth"], row["answer"], strict=True)
        unlike = [(a, c) for a, b, c in cells if a != b]
        assert 1 <= len(unlike) <= 5
        differ += len(unlike)
        hasty += sum(a == c for a, c in unlike)
    # Four standard deviations: about one run in 16,000 would miss it, and the seed is fixed.
    assert abs(hasty / differ - HASTY) < 4 * (HASTY * (1 - HASTY) / differ) ** 0.5


def test_worded_grids_say_the_same_in_two_ways() -> None:
    rows = list(worded_grids("train", 400))
    puzzles = [row["puzzle"] for row in rows]
    for row in rows:
        cells = row["answer"].replace("\n", "").replace(" ", "")
        assert cells.translate(str.maketrans("abcd", "1234")) == row["plain"].replace("\n", "").replace(" ", "")
        lines = zip(row["question"].split("\n"), row["truth"].split("\n"), strict=True)
        assert all(a in ("_", b) for line in lines for a, b in zip(*(each.split(" ") for each in line), strict=True))
        careless = hastily([line.split(" ") for line in row["question"].split("\n")])
        assert sum(" ".join(a) != b for a, b in zip(careless, row["truth"].split("\n"), strict=True)) >= 3
    letters = sum(cell in "abcd" for row in rows for cell in row["answer"])
    assert abs(letters / (16 * len(rows)) - 0.5) < 4 * 0.5 / (16 * len(rows)) ** 0.5
    # A reward that reads both words sees what the task's own sees of the plain text.
    said = worded.sudoku([""] * len(rows), [row["answer"] for row in rows], puzzle=puzzles)
    assert said == sudoku([""] * len(rows), [row["plain"] for row in rows], puzzle=puzzles)
    assert 0 < sum(value or 0 for value in said) < len(rows)


@pytest.mark.parametrize(
    ("recipe", "made", "last"),
    [
        ("sudoku-step-credit", grids, "seed-2/reinforce@one-step"),
        ("worded-base", worded_grids, "tune"),
        ("worded-step-credit", worded_grids, "seed-3/reinforce@progress"),
    ],
)
def test_the_comparison_plans(
    recipe: str, made: Callable[[str, int], Iterator[dict[str, str]]], last: str, tmp_path: Path
) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.jsonl", made(split, 40))
    base = tmp_path / "runs/worded-base/tune/checkpoint"
    build_model(BuildSpec(architecture="masked_llama", layers=1), ["1 2 3 4"], base, 0)
    text = (BENCHMARKS / f"{recipe}.yaml").read_text().replace("runs/worded-base", str(base.parents[1]))
    (tmp_path / "recipe.yaml").write_text(text.replace(f"runs/{recipe.split('-')[0]}-demonstrations", str(tmp_path)))
    planned = CliRunner().invoke(app, ["run", str(tmp_path / "recipe.yaml"), "--plan", "--runs", str(tmp_path)])
    assert planned.exit_code == 0 and last in planned.output, planned.output
