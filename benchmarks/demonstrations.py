"""Answers to learn from: sums term by term, grids of two solvers, one of them hasty, and the form that suites ask for.

python -m benchmarks.demonstrations sums FILE
python -m benchmarks.demonstrations sudoku FOLDER
python -m benchmarks.demonstrations worded FOLDER
python -m benchmarks.demonstrations suites FILE SIZE [SUITE]...
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.registry import find
from tasks.draw import seed64
from tasks.problem import Problem
from tasks.registry import load

SUMS: dict[str, Any] = {"min_terms": 4, "max_terms": 4, "min_digits": 1, "max_digits": 1}
"""The sums of recipes/smollm2-reinforce.yaml."""
HASTY = 0.35
"""How many of the cells where the two solvers differ the hasty one has filled."""
HASTY_WORDED = 0.1
"""The same where they differ in three rows or more, so that all of them are right about as often."""
LETTERS = "abcd"
"""For the digits 1 to 4: a cell is written as ` 3` or as `c`, which means the same."""

SUITES = (
    "rg-chain-sum",
    "rg-letter-counting",
    "rg-family-relationships",
    "rg:basic_arithmetic",
    "rg:spell_backward",
    "countdown-3",
    "countdown-4",
    "sudoku-4-easy",
    "sudoku-4-hard",
)
"""Those of which benchmarks/smollm2-suites.yaml shows a model other problems before it asks it theirs."""

Grid = list[list[str]]


def worked(question: str) -> str:
    """A sum, a partial result on each line: `3 + 4 - 9` is worked as `3 + 4 = 7`, `7 - 9 = -2`, and the answer."""
    terms = re.findall(r"(?:^|[-+] )\d+", question.rpartition(": ")[2])
    total, lines = int(terms[0]), []
    for term in terms[1:]:
        after = total + int(term.replace(" ", ""))
        lines.append(f"{total} {term} = {after}")
        total = after
    return "\n".join([*lines, f"<answer>{total}</answer>"])


def sums(size: int = 1500, seed: int = 1) -> Iterator[dict[str, str]]:
    """Rows of `rg:chain_sum`, split train."""
    for problem in load("rg:chain_sum", "train", size=size, seed=seed, **SUMS).problems:
        answer = worked(problem.question)
        assert answer.endswith(f"<answer>{problem.answer}</answer>"), problem
        yield {"id": problem.id, "question": problem.question, "answer": answer}


def hastily(question: Grid) -> Grid:
    """The smallest digit that the row so far and the clues of the column allow, cell by cell, never looking back."""
    filled = [list(row) for row in question]
    for row in filled:
        for place, clue in enumerate(row):
            if clue == "_":
                column = {other[place] for other in question}
                options = [digit for digit in "1234" if digit not in row]
                row[place] = next((digit for digit in options if digit not in column), options[0])
    return filled


def grids(split: str, size: int) -> Iterator[dict[str, str]]:
    """4 by 4 sudoku where the hasty solver errs in one to five cells. `truth` is the solution.

    In the split `train`, `answer` is a mixture: each cell that the two fill differently is the hasty solver's with
    probability `HASTY`. A model that learns it by heart is right where every cell falls to the careful one.
    """
    for problem in load("sudoku", split, size=size, least_empty=6, most_empty=10).problems:
        truth = _grid(problem.answer)
        hasty = hastily(_grid(problem.question))
        rng = random.Random(seed64("demonstrations", problem.id))
        wrong = sum(a != b for rows in zip(truth, hasty, strict=True) for a, b in zip(*rows, strict=True))
        if 1 <= wrong <= 5:
            yield _row(problem, _text(_mixed(truth, hasty, HASTY, rng)) if split == "train" else problem.answer)


def worded_grids(split: str, size: int) -> Iterator[dict[str, str]]:
    """The same where the hasty solver errs in three rows or more, every cell worded in one of two ways by chance.

    Much of what such an answer says has no bearing on whether it is right, as in texts. `plain` is the mixture without:
    a model is first tuned on that, so that its tokenizer makes no token of two cells.
    """
    for problem in load("sudoku", split, size=size, least_empty=9, most_empty=12, seed=3).problems:
        truth = _grid(problem.answer)
        hasty = hastily(_grid(problem.question))
        rng = random.Random(seed64("worded demonstrations", problem.id))
        if sum(ours != theirs for ours, theirs in zip(truth, hasty, strict=True)) >= 3:
            mixed = _mixed(truth, hasty, HASTY_WORDED, rng)
            answer = _worded(mixed, rng) if split == "train" else problem.answer
            yield {**_row(problem, answer), "plain": _text(mixed)}


def suite_answers(size: int, suites: Sequence[str] = SUITES) -> Iterator[dict[str, str]]:
    """For each suite, so many problems of its task's split train, asked as it asks, and the bare answer."""
    for name in suites:
        suite = find(name)
        for problem in load(**{**suite.data, "split": "train", "size": size}).problems:
            yield {
                "id": f"{name}/{problem.id}",
                "question": f"{suite.prompt.before}{problem.question}{suite.prompt.after}",
                "answer": f"<answer>{problem.answer}</answer>",
                "kind": name,
            }


def _mixed(truth: Grid, hasty: Grid, share: float, rng: random.Random) -> Grid:
    return [
        [theirs if rng.random() < share else ours for ours, theirs in zip(*rows, strict=True)]
        for rows in zip(truth, hasty, strict=True)
    ]


def _worded(grid: Grid, rng: random.Random) -> str:
    return "\n".join(
        "".join(LETTERS[int(cell) - 1] if rng.random() < 0.5 else f" {cell}" for cell in row).strip() for row in grid
    )


def _row(problem: Problem, answer: str) -> dict[str, str]:
    return {
        "id": problem.id,
        "question": problem.question,
        "answer": answer,
        "truth": problem.answer,
        "puzzle": problem.columns["puzzle"],
    }


def _grid(text: str) -> Grid:
    return [row.split(" ") for row in text.split("\n")]


def _text(grid: Grid) -> str:
    return "\n".join(" ".join(row) for row in grid)


def write(path: Path, rows: Iterator[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path}: {len(lines)} rows")


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["sums", file]:
            write(Path(file), sums())
        case ["suites", file, size, *names]:
            write(Path(file), suite_answers(int(size), names or SUITES))
        case ["sudoku", folder]:
            for split, size in (("train", 14_000), ("validation", 3000), ("test", 3000)):
                write(Path(folder) / f"{split}.jsonl", grids(split, size))
        case ["worded", folder]:
            for split, size in (("train", 130_000), ("validation", 7000), ("test", 9000)):
                write(Path(folder) / f"{split}.jsonl", worded_grids(split, size))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
