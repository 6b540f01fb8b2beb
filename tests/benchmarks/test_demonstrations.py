"""Worked answers are right where they should be, and wrong as often as they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.demonstrations import HASTY, grids, hastily, sums, worked, write
from pipelines.cli import app
from rewards.maths import number
from rewards.puzzles import sudoku

RECIPE = Path(__file__).parents[2] / "benchmarks/sudoku-step-credit.yaml"


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

    gold = {problem.id: problem.answer for problem in load("rg:chain_sum", size=40, seed=1, min_terms=3, max_terms=4,
                                                           min_digits=1, max_digits=2).problems}  # fmt: skip
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


def test_the_comparison_plans(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path / f"{split}.jsonl", grids(split, 20))
    sources = [
        f"data.{name}.source={tmp_path}/{split}.jsonl"
        for name, split in (("mixed", "train"), ("labelled", "train"), ("test", "test"))
    ]
    planned = CliRunner().invoke(app, ["run", str(RECIPE), "--plan", "--runs", str(tmp_path), *sources])
    assert planned.exit_code == 0 and "seed-2/reinforce@one-step" in planned.output, planned.output
