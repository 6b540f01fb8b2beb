"""The game of 24: all puzzles of the table, each with a solution that our reward takes."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from rewards.registry import load as load_reward
from tasks import game24, packages
from tasks.problem import TaskError
from tasks.registry import check, columns, load


@pytest.fixture
def table() -> list[dict[str, str]]:
    if importlib.util.find_spec("tot") is None:
        pytest.skip("tree-of-thoughts-llm is not installed")
    folder = packages.folder("tot", "tree-of-thoughts-llm")
    with (folder / "data/24/24.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_puzzle_of_the_table_has_a_solution_that_the_reward_takes(table: list[dict[str, str]]) -> None:
    problems = load("game24", "test").problems
    assert len(problems) == len(table) == 1_362 == len({each.id for each in problems})
    gold = [each.answer for each in problems]
    of_all = {name: [each.columns[name] for each in problems] for name in columns("game24", "test") or ()}
    assert load_reward("countdown")(gold, gold, **of_all) == [1.0] * 1_362
    for row, each in zip(table, problems, strict=True):
        assert each.id == row["Puzzles"] == " ".join(map(str, each.columns["numbers"]))
        assert each.columns["rank"] == int(row["Rank"])
        assert 100 * each.columns["solve_rate"] == pytest.approx(float(row["Solved rate"].removesuffix("%")))
        low, high = (int(bound) / 100 for bound in each.kind.removesuffix(" % solve it").split("–"))
        assert low <= each.columns["solve_rate"] < high + 0.01
    assert "Target: 24." in problems[0].question


def test_the_set_of_the_paper_is_a_choice_of_ranks(table: list[dict[str, str]]) -> None:
    problems = load("game24", "test", ranks=[901, 1000]).problems
    assert [each.columns["rank"] for each in problems] == list(range(901, 1001))
    assert problems[0].id == "4 5 6 10"
    assert check("game24", "test", ranks=[901, 1000], skip=10, take=90) is None
    with pytest.raises(TaskError, match="asks for more than its 100 problems"):
        check("game24", "test", ranks=[901, 1000], skip=10, take=91)


@pytest.mark.parametrize("ranks", [[0, 5], [5, 4], [1, 1363], [1], [1, 2, 3], 7, "19", [1.0, 2.0], [True, 2], "ab"])
def test_ranks_that_are_not_there_are_refused_in_one_line(ranks: object, table: list[dict[str, str]]) -> None:
    with pytest.raises(TaskError, match="ranks are a first and a last one from 1 to 1362, not"):
        load("game24", "test", ranks=ranks)


def test_an_unknown_split_and_a_missing_package_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no split 'train'; it has test"):
        load("game24")
    with pytest.raises(TaskError, match=r"no-such-package is not installed; pip install 'trivium-reasoning\[no-such"):
        packages.folder("no_such_package", "no-such-package")
    # Another package of the same short name.
    monkeypatch.setattr(packages, "folder", lambda *names: tmp_path)
    game24._table.cache_clear()
    with pytest.raises(TaskError, match=r"another one; pip install --no-deps tree-of-thoughts-llm"):
        load("game24", "test")
