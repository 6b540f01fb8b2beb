"""What a glance says of data, against the data themselves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.glance import glance
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


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_local_table(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"table.{kind}"
    if kind == "jsonl":
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
