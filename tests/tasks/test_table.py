"""Tables of every kind give the same problems; what cannot be used is counted or named."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks import table
from tasks.problem import Problem, TaskError
from tasks.registry import load

ROWS = [
    {"question": "what is it?", "answer": "a cat", "image": "cat.png", "id": "c", "kind": "animal"},
    {"question": "where, \"it\" asks,\nis it?", "answer": "on a 🦊", "image": "fox.png", "id": "f", "kind": "place"},
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(("cat.png", "fox.png")):
        Image.fromarray(np.full((4, 4, 3), 100 * i, dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def written(rows: Sequence[Mapping[str, Any]], path: Path) -> str:
    import datasets
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(list(rows)))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        parquet.write_table(arrow.Table.from_pylist(list(rows)), path)
    elif path.name == "split":
        datasets.DatasetDict({"train": datasets.Dataset.from_list(list(rows))}).save_to_disk(str(path))
    else:
        datasets.Dataset.from_list(list(rows)).save_to_disk(str(path))
    return str(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "saved", "split"])
def test_every_format_gives_the_same_problems(name: str, folder: Path) -> None:
    rows = table.load("train", written(ROWS, folder / name), images=str(folder))
    assert rows.problems == [
        Problem(r["id"], r["question"], r["answer"], str(folder / r["image"]), r["image"], r["kind"]) for r in ROWS
    ]
    assert [(p.id, p.path) for p in rows.pictures] == [(n, str(folder / n)) for n in ("cat.png", "fox.png")]
    assert rows.dropped == ()


GOLDS = (
    ["1", "2", "", "4"], ["060", "007", "3"], ["None", "NA", "null", "nan"], ["True", "False"], ["1", "1.50", "3/4"],
    ["2020-01-01", "2021-02-03"], ["12345678901234567890123", "1"],
)  # fmt: skip


@pytest.mark.parametrize("golds", GOLDS, ids=lambda golds: golds[0])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "json"])
def test_a_gold_answer_is_what_stands_in_the_file(golds: Sequence[str], ending: str, folder: Path) -> None:
    rows = [{"id": f"{i}", "question": "q", "answer": gold} for i, gold in enumerate(golds)]
    read = table.load("train", written(rows, folder / f"rows.{ending}"))
    assert {p.id: p.answer for p in read.problems} == {f"{i}": gold for i, gold in enumerate(golds) if gold}
    assert sum(number for _, number in read.dropped) == golds.count("")


def test_numbers_of_json_are_not_made_others_by_those_of_other_rows(folder: Path) -> None:
    rows = [{"question": "q", "answer": gold, "of": {str(gold): 1}} for gold in (1, 2.5, None, 3, float("nan"))]
    read = table.load("train", written(rows, folder / "rows.jsonl"))
    assert [(p.answer, p.columns["of"]) for p in read.problems] == [
        ("1", {"1": 1}),
        ("2.5", {"2.5": 1}),
        ("3", {"3": 1}),
    ]
    assert dict(read.dropped) == {"empty (rows 2, 4)": 2}


def test_the_other_columns_of_a_csv_are_numbers_where_all_their_cells_are(folder: Path) -> None:
    cells = {
        "target": (["24", "-7", "0"], [24, -7, 0]),
        "tolerance": (["0.10", "1e-3", "2"], [0.1, 0.001, 2]),
        "level": (["1", "", "3"], [1, None, 3]),
        "code": (["060", "7", "8"], ["060", "7", "8"]),
        "word": (["None", "", "7"], ["None", None, "7"]),
        "long": (["1" * 30, "2", "3"], ["1" * 30, "2", "3"]),
    }
    rows = [{"question": "q", "answer": "a", **{name: each[0][i] for name, each in cells.items()}} for i in range(3)]
    read = table.load("train", written(rows, folder / "rows.csv"))
    for name, (_, wanted) in cells.items():
        found = [p.columns[name] for p in read.problems]
        assert found == wanted and [type(each) for each in found] == [type(each) for each in wanted], name


def test_a_csv_as_spreadsheets_write_it_is_read(folder: Path) -> None:
    long = "x" * 200_000
    text = f'question,answer\r\n"a ""b"",\r\nc?",1\r\n\r\n{long},2\r\n'
    (folder / "rows.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    table.check("train", str(folder / "rows.csv"))
    read = table.load("train", str(folder / "rows.csv"))
    assert [(p.question, p.answer) for p in read.problems] == [('a "b",\r\nc?', "1"), (long, "2")]


GOOD = '{"question": "q", "answer": "a"}\n'
LIST = '{"question": "q",\n "answer": "a"},\n'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", GOOD * 500 + '{"question": "q", "answer"\n' + GOOD * 500, "line 501: .*Expecting ':'"),
        ("x.jsonl", GOOD + "\n[1]\n", "line 3: .*no object"),
        ("x.jsonl", GOOD + GOOD.rstrip() * 2, "line 2: .*Extra data"),
        ("x.jsonl", (GOOD * 9).encode() + b'{"question": "\xe9"}\n', "line 10: .*not UTF-8"),
        ("x.jsonl", GOOD + f'{{"question": "q", "answer": {"1" * 5000}}}\n', "line 2: .*4300 digits"),
        ("x.json", "[" + LIST + '{"question" "q"}]', "line 3: .*Expecting ':'"),
        ("x.json", '[{"question": "q"}, 7]', "row 1: .*no object"),
        ("x.csv", 'question,answer\n"a\nb",1\na,b,c,d\nq,3\n', r"line 4: .*4 cells, and the header has 2\)"),
        ("x.csv", "question,answer\nq,1\nq\n", "line 3: .*1 cells"),
        ("x.csv", 'question,answer\nq,1\nr,"2\ns,3\nt,4\n', "line 3: .*unexpected end"),
        ("x.csv", "question,answer,answer\nq,1,2\n", "line 1: .*two columns are called 'answer'"),
        ("x.csv", "question,answer\n", "has no row"),
        ("x.jsonl", "\n", "it is empty"),
        ("x.csv", "", "it is empty"),
    ],
)
def test_the_first_line_that_cannot_be_read_is_named(
    name: str, content: str | bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TaskError, match=rf"{name}\b.*{said}") as caught:
        table.load("train", str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_conversations_that_are_none_are_counted(folder: Path) -> None:
    good = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hi."}]
    rows = [{"conversations": turns} for turns in (["Hi?", "Hi."], "Hi?", good)]
    read = table.load("train", written(rows, folder / "rows.jsonl"))
    assert len(read.problems) == 1 and dict(read.dropped) == {"its conversations are no list of turns (rows 0, 1)": 2}


def test_columns_are_mapped_and_a_missing_one_is_named_with_those_there_are(folder: Path) -> None:
    source = written([{"q": "what?", "label": "cat", "n": 7}], folder / "rows.jsonl")
    rows = table.load("train", source, columns={"question": "q", "answer": "label", "id": "n"})
    assert rows.problems == [Problem("7", "what?", "cat", None, "7", "")]
    with pytest.raises(TaskError, match=r"rows\.jsonl: no column 'lable' for answer; it has q, label, n"):
        table.load("train", source, columns={"question": "q", "answer": "lable"})
    with pytest.raises(TaskError, match=r"columns maps \['anwser'\]"):
        table.load("train", source, columns={"anwser": "label"})
    with pytest.raises(TaskError, match=r"neither a question nor an image column; it has q, label, n$"):
        table.load("train", source)
    (folder / "parted.csv").write_text("question;answer\n1 + 1?;2\n")
    with pytest.raises(TaskError, match=r"it has question;answer; columns of a CSV are parted by commas$"):
        table.load("train", str(folder / "parted.csv"))


def test_all_other_columns_reach_the_reward(folder: Path) -> None:
    row = {"q": "3 and 4?", "answer": "no", "label": "7", "numbers": [3, 4], "prompts": "x", "note": None, "id": "a"}
    options: dict[str, Any] = {
        "source": written([row], folder / "rows.jsonl"), "columns": {"question": "q", "answer": "label"},
    }  # fmt: skip
    [problem] = table.load("train", **options).problems
    # `answer` is the mapped one, and `prompts` is what a reward is called with.
    assert problem.columns == {"numbers": [3, 4], "note": None}
    assert table.columns("train", **options) == {"numbers", "note"}
    assert table.columns("train", "somebody/hub-dataset") is None


def test_what_cannot_be_used_is_counted(folder: Path) -> None:
    (folder / "zero.png").touch()
    (folder / "text.png").write_text("no image")
    more = [
        {"question": "q", "answer": "a", "image": "nowhere.png"},
        {"question": "q", "answer": "a", "image": "zero.png"},
        {"question": "q", "answer": "a", "image": "text.png"},
        {"question": "", "answer": "a", "image": None},
        {"question": "q", "answer": " ", "image": ""},
        {"question": "without an image", "answer": "is fine", "image": ""},
    ]
    rows = load("table", source=written([*ROWS, *more], folder / "rows.jsonl"), images=str(folder))
    assert dict(rows.dropped) == {
        "missing_image (file nowhere.png of problem 2)": 1, "empty (rows 5, 6)": 2,
        "empty_file (file zero.png of problem 3)": 1, "unreadable (file text.png of problem 4)": 1,
    }  # fmt: skip
    assert rows.lost == 5
    assert [p.question for p in rows.problems] == [ROWS[0]["question"], ROWS[1]["question"], "without an image"]
    assert rows.problems[-1].image is None
    with pytest.raises(TaskError, match=r"no usable row \(1 empty \(row 0\)\)"):
        table.load("train", written(more[3:4], folder / "bad.jsonl"))


def test_rows_that_share_an_id_are_different_problems(folder: Path) -> None:
    again = [ROWS[0] | {"question": "and again?"}, ROWS[1], ROWS[0] | {"question": "a third?"}]
    rows = table.load("train", written([*ROWS, *again], folder / "rows.jsonl"), images=str(folder))
    assert [p.id for p in rows.problems] == ["c", "f", "c#2", "f#2", "c#3"]


def test_llava_conversations_give_their_first_exchange(folder: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A cat."},
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": "Here."},
    ]
    blind = [{"from": "human", "value": "Say hi."}, {"from": "gpt", "value": "Hi."}]
    source = written(
        [
            {"id": "1", "image": "cat.png", "conversations": turns},
            {"id": "2", "image": None, "conversations": blind},
            {"id": "3", "image": None, "conversations": blind[:1]},
        ],
        folder / "llava.json",
    )
    rows = table.load("train", source, images=str(folder))
    assert [(p.id, p.question, p.answer, p.image) for p in rows.problems] == [
        ("1", "What is it?", "A cat.", str(folder / "cat.png")),
        ("2", "Say hi.", "Hi.", None),
    ]
    assert dict(rows.dropped) == {"empty (row 2)": 1}


def test_images_inside_the_table_become_files_and_broken_ones_are_counted(folder: Path, cache: Path) -> None:
    import datasets

    whole = (folder / "cat.png").read_bytes()
    cells = [{"bytes": data, "path": None} for data in (whole, whole[:40], b"", whole)]
    data = {"image": cells, "question": ["a?", "b?", "c?", "d?"], "answer": ["1", "2", "3", "4"]}
    features = datasets.Features(
        {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    )
    saved = datasets.Dataset.from_dict(data, features=features)
    saved.save_to_disk(str(folder / "saved"))
    saved.to_parquet(str(folder / "rows.parquet"))
    for name in ("saved", "rows.parquet"):
        rows = load("table", source=str(folder / name))
        assert [p.question for p in rows.problems] == ["a?", "d?"]
        assert [(reason.partition(" (")[0], number) for reason, number in rows.dropped] == [
            ("empty_file", 1), ("unreadable", 1),
        ]  # fmt: skip
        assert [reason[-14:] for reason, _ in rows.dropped] == [" of problem 2)", " of problem 1)"]
        # Equal images are one image: one picture, one cluster, one file.
        assert len(rows.pictures) == 1 and {p.cluster for p in rows.problems} == {rows.pictures[0].id}
        assert Path(rows.pictures[0].path).read_bytes() == whole
        assert cache in Path(rows.pictures[0].path).parents
    assert not list(cache.rglob("*.part"))


def test_images_without_questions_are_pictures(folder: Path) -> None:
    source = written([{"image": "cat.png"}, {"image": "fox.png"}], folder / "rows.csv")
    rows = table.load("train", source, images=str(folder))
    assert [p.id for p in rows.pictures] == ["cat.png", "fox.png"] and rows.problems == []
    assert rows.left_out == {"no_question": 2}


def test_the_problems_of_a_bad_image_are_counted_each(folder: Path) -> None:
    (folder / "torn.png").write_text("no image")
    asked = [{"question": f"{i}?", "answer": "a", "image": "torn.png"} for i in range(3)]
    silent = {"question": "", "answer": "", "image": "torn.png"}
    rows = load("table", source=written([*ROWS, *asked, silent], folder / "rows.jsonl"), images=str(folder))
    assert dict(rows.dropped) == {"unreadable (file torn.png of problem 2)": 3} == rows.left_out and rows.lost == 3


def test_what_is_lost_was_asked_for(folder: Path) -> None:
    bad = {"question": "q", "answer": "a", "image": "nowhere.png"}
    source = written([{"question": "", "answer": ""}, *ROWS, bad], folder / "rows.jsonl")
    found = [
        load("table", source=source, images=str(folder), **part)
        for part in ({}, {"take": 2}, {"skip": 1}, {"skip": 1, "take": 1})
    ]
    # A slice counts the rows that can be used, so an empty one is missing in none; its images are then looked at.
    assert [(len(rows.problems), rows.lost) for rows in found] == [(2, 2), (2, 0), (1, 1), (1, 0)]
    assert load("sudoku", size=30, side=4).lost == 0


def test_a_source_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.xlsx").touch()
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    (tmp_path / "torn.jsonl").write_text('{"question": "a"\n')
    for source, words in {
        "./nowhere.jsonl": "no such file",
        str(tmp_path / "x.xlsx"): "not one of",
        str(tmp_path / "torn.parquet"): "cannot be read",
        str(tmp_path / "torn.jsonl"): "cannot be read",
    }.items():
        with pytest.raises(TaskError, match=words) as caught:
            table.load("train", source)
        assert "\n" not in str(caught.value)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "train.jsonl").write_text(GOOD * 3 + '{"question": "q", "answer"\n')
    with pytest.raises(TaskError, match=r"split train: cannot be read .*[Mm]issing a colon"):
        table.load("train", str(tmp_path / "copy"))
    written(ROWS, tmp_path / "split")
    with pytest.raises(TaskError, match="split dev: cannot be read"):
        table.load("dev", str(tmp_path / "split"))


def test_a_slice_without_images_tells_of_its_own_rows(folder: Path) -> None:
    good = [{"question": f"{number}?", "answer": str(number)} for number in range(4)]
    bad = {"question": "x", "answer": ""}
    source = written([bad, *good[:2], bad, *good[2:]], folder / "rows.jsonl")
    assert dict(load("table", source=source).dropped) == {"empty (rows 0, 3)": 2}
    assert dict(load("table", source=source, take=2).dropped) == {"empty (row 0)": 1}
    assert dict(load("table", source=source, skip=2, take=1).dropped) == {"empty (row 3)": 1}
    assert not load("table", source=source, skip=3).dropped
