"""What a glance says of data, against the data themselves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.glance import glance
from tasks.puzzles import arrays
from tasks.registry import load

ROWS = [{"question": "q" * (10 + n), "answer": "a" * 4, "image": None} for n in range(7)]


def mean(texts: Any) -> float:
    values = [len(text) for text in texts]
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("task", "split", "options"),
    [
        ("easy-vqa", "train", {}),
        ("easy-vqa", "test", {}),
        ("sudoku", "train", {"side": 4, "size": 5}),
        ("maze", "train", {"side": 6, "size": 4}),
    ],
)
def test_glance_is_what_loading_gives(task: str, split: str, options: dict[str, Any]) -> None:
    rows, found = load(task, split, **options), glance(task, split, **options)
    assert found.problems == len(rows.problems)
    assert found.question == pytest.approx(mean(problem.question for problem in rows.problems))
    assert found.answer == pytest.approx(mean(problem.answer for problem in rows.problems))
    assert (found.pictures or 0) == len(rows.pictures)


def test_slice_of_images_has_its_share_of_the_questions() -> None:
    rows, found = load("easy-vqa", "train", take=400), glance("easy-vqa", "train", take=400)
    assert found.pictures == 400
    assert found.problems == pytest.approx(len(rows.problems), rel=0.03)
    rest = glance("easy-vqa", "train", skip=400)
    assert rest.pictures == len(load("easy-vqa", "train", skip=400).pictures)


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "saved"])
def test_local_table(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{kind}"
    if kind == "saved":
        import datasets

        datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(path))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["question", "answer"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        import pyarrow as arrow
        import pyarrow.parquet as parquet

        parquet.write_table(arrow.Table.from_pylist(ROWS), path)
    found = glance("table", source=str(path))
    assert (found.problems, found.question, found.answer, found.pictures) == (7, 13, 4, None)
    assert glance("table", source=str(path), take=3).problems == 3
    assert glance("table", source=str(path), skip=5).problems == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'question,answer\n"two\nlines",1\n\nx,2'),
        ("a.jsonl", '{"question": "x", "answer": "1"}\n\n{"question": "y", "answer": "2"}'),
    ],
)
def test_rows_of_a_table_are_counted_as_they_are_loaded(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    options = {"source": str(tmp_path / name)}
    assert glance("table", **options).problems == len(load("table", **options).problems) == 2


@pytest.mark.parametrize(("task", "side"), [("sudoku", 4), ("maze", 6)])
@pytest.mark.parametrize("form", ["folder", "csv", "arrays"])
def test_files_of_puzzles_are_as_many_and_as_large_as_they_are_loaded(
    task: str, side: int, form: str, tmp_path: Path
) -> None:
    made = load(task, "train", side=side, size=63).problems
    if form == "arrays":
        arrays.write(tmp_path, "test", arrays.of_problems(made, {"sudoku": "_1234", "maze": "#.SGo"}[task]))
    else:
        signs = {"sudoku": ("_", "."), "maze": (".", " ")}[task]
        texts = [["".join(text.split()).replace(*signs) for text in (each.question, each.answer)] for each in made]
        rows = "\n".join(",".join(["here", *pair, "0"]) for pair in texts)
        (tmp_path / "test.csv").write_text(f"source,question,answer,rating\n\n{rows}")  # no break behind the last
    source = str(tmp_path / "test.csv" if form == "csv" else tmp_path)
    part: dict[str, int]
    for part in ({}, {"skip": 40}, {"skip": 40, "take": 3}, {"take": 9}):
        asked: dict[str, Any] = {"source": source, **part}
        rows, found = load(f"{task}-file", "test", **asked), glance(f"{task}-file", "test", **asked)
        assert found.problems == len(rows.problems)
        assert found.question == found.answer == mean(problem.question for problem in rows.problems)
        assert found.cells == side**2
    assert glance(f"{task}-file", "test", source=source, size=9).problems == 9


def test_images_and_conversations_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    turns = [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "answer"}, {"from": "human", "value": "more"}]
    path.write_text(json.dumps({"conversations": turns, "photo": "a.png"}) + "\n")
    found = glance("table", source=str(path), columns={"image": "photo"})
    assert (found.question, found.answer, found.pictures) == (3, 6, 1)


def test_what_is_on_the_hub_or_at_a_url_stays_unknown() -> None:
    assert glance("table", source="org/data") == glance("table", source="s3://bucket/data.jsonl")
    assert glance("table", source="org/data").problems is None
    assert glance("table", source="org/data", take=9).problems == 9


def test_problems_made_by_a_seed_are_as_many_as_asked_for() -> None:
    found = glance("countdown", size=12, take=5)
    assert (found.problems, found.question) == (5, None)
