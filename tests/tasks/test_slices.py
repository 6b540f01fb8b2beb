"""Tasks by name, and their slices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tasks import registry
from tasks.problem import TaskError


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Three images with two questions each, interleaved, and two questions without an image."""
    rows = []
    for i in range(3):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
    for turn in range(2):
        rows += [{"id": f"{i}-{turn}", "question": "q", "answer": "a", "image": f"{i}.png"} for i in range(3)]
        rows.append({"id": f"text-{turn}", "question": "q", "answer": "a", "image": None})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ids(source: str, **cut: int) -> tuple[list[str], list[str]]:
    rows = registry.load("table", source=source, images=str(Path(source).parent), **cut)
    return [p.id for p in rows.problems], [p.id for p in rows.pictures]


def test_without_a_slice_nothing_is_lost(source: str) -> None:
    problems, pictures = ids(source)
    assert problems == ["0-0", "1-0", "2-0", "text-0", "0-1", "1-1", "2-1", "text-1"]
    assert pictures == ["0.png", "1.png", "2.png"]


def test_a_slice_counts_images_keeps_their_questions_together_and_parts_the_task(source: str) -> None:
    assert ids(source, take=2) == (["0-0", "1-0", "0-1", "1-1"], ["0.png", "1.png"])
    for at in range(1, 5):
        first, second = ids(source, take=at), ids(source, skip=at)
        assert set(first[0]).isdisjoint(second[0]) and set(first[1]).isdisjoint(second[1])
        assert sorted(first[0] + second[0]) == sorted(ids(source)[0])
        assert first[1] + second[1] == ids(source)[1]
    assert ids(source, skip=3, take=1) == (["text-0"], [])


def test_a_slice_of_a_task_without_images_counts_problems(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{i}", "answer": "a"}) + "\n" for i in range(5)))
    rows = registry.load("table", source=str(path), skip=1, take=2)
    assert [p.question for p in rows.problems] == ["q1", "q2"]
    with pytest.raises(TaskError, match="skip 4 and take 2 asks for more than its 5 problems"):
        registry.load("table", source=str(path), skip=4, take=2)


def test_more_than_there_is_is_refused(source: str) -> None:
    with pytest.raises(TaskError, match="asks for more than its 5"):
        ids(source, take=6)
    with pytest.raises(TaskError, match="skip 5"):
        ids(source, skip=5)


def test_names_and_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="did you mean 'easy-vqa'"):
        registry.load("easy_vqa")
    with pytest.raises(TaskError, match=r"there are arc, countdown, .*, sudoku-file, table"):
        registry.entry("zzz")
    with pytest.raises(TaskError, match=r"`foldr` is no key of task images; did you mean `folder`"):
        registry.load("images", foldr=str(tmp_path))
    with pytest.raises(TaskError, match=r"task table needs `source`"):
        registry.load("table")
    assert [each.name for each in registry.entries()] == [
        "arc",
        "countdown",
        "easy-vqa",
        "game24",
        "images",
        "maze",
        "maze-file",
        "rg:NAME",
        "scenes",
        "sudoku",
        "sudoku-file",
        "table",
    ]
    assert registry.truth("images", "what?", "a.png") is None


def test_a_slice_beyond_the_images_is_found_at_plan_time(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{i}.png")
    assert registry.check("images", folder=str(tmp_path), skip=1, take=2) is None
    for cut in ({"skip": 3}, {"take": 4}, {"skip": 2, "take": 2}):
        with pytest.raises(TaskError, match="asks for more than its 3 images"):
            registry.check("images", folder=str(tmp_path), **cut)
    images = len(registry.load("easy-vqa", "validation").pictures)
    assert registry.check("easy-vqa", "validation", take=images) is None
    with pytest.raises(TaskError, match="asks for more than its"):
        registry.check("easy-vqa", "validation", take=images + 10)


@pytest.mark.parametrize(
    ("task", "made"), [("sudoku", True), ("countdown", True), ("rg:chain_sum", True), ("sudoku-file", False)]
)
def test_a_task_that_makes_problems_is_told_from_one_that_has_them(task: str, made: bool) -> None:
    """The first so many are the same, however many are asked for."""
    assert registry.makes_problems(task) is made
    if made:
        few, many = (registry.load(task, size=size).problems for size in (3, 12))
        assert list(few) == list(many[:3])
