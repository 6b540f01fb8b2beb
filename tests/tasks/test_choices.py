"""Multiple-choice tables: options in all their forms, gold answers by label, index and text; faults are named."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rewards.builtin import choice
from tasks import choices, table
from tasks.faults import Fault
from tasks.problem import TaskError
from tasks.registry import check, columns, load

MAP = {"choices": "options", "answer": "right"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def written(rows: Sequence[Mapping[str, Any]], path: Path) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("options", "gold", "right"),
    [
        (["red", "blue", "green"], "label", ["A", "C", "B"]),
        (["red", "blue", "green"], "index", [0, 2, 1]),
        (["red", "blue", "green"], "text", ["red", "green", "blue"]),
        ({"text": ["red", "blue", "green"], "label": ["1", "2", "3"]}, "label", ["1", "3", "2"]),
        ({"text": ["red", "blue", "green"], "label": ["A", "B", "C"]}, "label", ["A", "C", "B"]),
    ],
)
def test_options_are_lettered_lines_and_the_gold_is_a_letter(
    options: Any, gold: str, right: list[Any], tmp_path: Path
) -> None:
    rows = [{"question": f"Which, {i}?", "options": options, "right": each} for i, each in enumerate(right)]
    given = {"source": written(rows, tmp_path / "rows.jsonl"), "columns": MAP, "gold": gold}
    found = load("table", **given)
    assert [each.answer for each in found.problems] == ["A", "C", "B"]
    for number, each in enumerate(found.problems):
        assert each.question == f"Which, {number}?\nA. red\nB. blue\nC. green"
        assert each.columns == {"choices": ["red", "blue", "green"]}
        for said in (each.answer, ["red", "green", "blue"][number]):
            assert choice([""], [said], answer=[each.answer], choices=[each.columns["choices"]]) == [1.0]
    assert found.dropped == () and columns("table", **given) == {"choices"}
    assert check("table", **given) is None


def test_without_gold_it_is_the_label_and_without_options_the_answer_stays(tmp_path: Path) -> None:
    rows = [
        {"question": "one?", "options": ["x", "y"], "right": "B"},
        {"question": "two?", "options": None, "right": "7.5"},
        {"question": "three?", "options": [], "right": "B"},
    ]
    found = table.load("train", written(rows, tmp_path / "rows.jsonl"), columns=MAP).problems
    assert [(each.question, each.answer, each.columns["choices"]) for each in found] == [
        ("one?\nA. x\nB. y", "B", ["x", "y"]),
        ("two?", "7.5", None),
        ("three?", "B", None),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Where?\nOptions: A: On it., B: Under it., C: In, or at, D: Off", ["On it.", "Under it.", "In, or at", "Off"]),
        ("Which?\nChoices:\n(A) 3 m\n(B) 4 m", ["3 m", "4 m"]),
        ("Give A, B or C. Options:\nA. a\nB. b: c\nC. d", ["a", "b: c", "d"]),
        ("Options: none. Choices: A) x B) y", ["x", "y"]),
        ("Options: A: see C: there, B: y", ["see C: there", "y"]),
        ("Options: A: 1, C: 3", None),
        ("Which of A: x, B: y?", None),
        ("How many?", None),
    ],
)
def test_options_inside_of_a_question_are_read_and_not_shown_again(text: str, found: list[str] | None) -> None:
    read = choices.read(text)
    assert (list(read.texts) if read else None) == found
    if read:
        assert read.behind(text) == text
        assert [read.letter(label, "label") for label in read.labels] == list("ABCD"[: len(read.texts)])


def test_the_question_itself_may_be_the_column_of_options(tmp_path: Path) -> None:
    rows = [{"question": "Which? Options: A: x, B: y", "answer": "B"}, {"question": "Which?", "answer": "C"}]
    given = {"source": written(rows, tmp_path / "rows.jsonl"), "columns": {"choices": "question"}}
    found = load("table", **given).problems
    assert [(each.question, each.answer, each.columns) for each in found] == [
        ("Which? Options: A: x, B: y", "B", {"choices": ["x", "y"]}),
        ("Which?", "C", {"choices": None}),
    ]


def test_options_that_a_question_lists_are_not_listed_again(tmp_path: Path) -> None:
    rows = [
        {
            "question": "Hint: a letter.\nQuestion: how long?\nChoices:\n(A) 3\n(B) 4",
            "options": ["3", "4"],
            "right": "4",
        },
        {"question": "Choices: 3 and 5. How long?", "options": ["3", "4"], "right": "3"},
        {"question": "Is it 3 or 4?", "options": ["3", "4"], "right": "3"},
    ]
    found = table.load("train", written(rows, tmp_path / "rows.jsonl"), columns=MAP, gold="text").problems
    assert [each.question for each in found] == [
        rows[0]["question"], f"{rows[1]['question']}\nA. 3\nB. 4", f"{rows[2]['question']}\nA. 3\nB. 4",
    ]  # fmt: skip
    assert [each.answer for each in found] == ["B", "A", "A"]


def test_rows_whose_options_cannot_be_read_are_counted_and_named(tmp_path: Path) -> None:
    good = {"question": "q?", "options": {"text": ["x", "y"], "label": ["A", "B"]}, "right": "A"}
    rows = [
        good,
        good | {"right": "C"},
        good | {"right": "x"},
        good | {"options": {"text": ["x"], "label": ["A", "B"]}},
        good | {"options": {"text": [str(i) for i in range(27)], "label": None}},
        good | {"right": ""},
        *[good | {"right": "a"}] * 3,
    ]
    found = table.load("train", written(rows, tmp_path / "rows.jsonl"), columns=MAP)
    assert len(found.problems) == 1
    assert dict(found.dropped) == {
        "its answer is none of its options (rows 1, 2, 6, …)": 5,
        "it has other labels than options (row 3)": 1,
        "it has more than 26 options (row 4)": 1,
        "empty (row 5)": 1,
    }
    with pytest.raises(TaskError, match=r"no usable row \(1 its answer is none of its options \(row 0\)\)") as refused:
        table.load("train", written([good | {"right": 1}], tmp_path / "bad.jsonl"), columns=MAP, gold="text")
    assert "\n" not in str(refused.value)
    for value in ([["x"]], [None, "x"], 7, {"text": "x"}):
        with pytest.raises(Fault, match="no list of texts"):
            choices.read(value)
    for index in (-1, 2, "1.0", None, "A"):
        with pytest.raises(Fault, match="none of its options"):
            choices.Choices(["x", "y"], ["A", "B"]).letter(index, "index")


def test_an_answer_behind_a_marker_and_a_context_before_the_question(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "answer": "3 #### 4 and\n#### 72", "hint": "It rains."},
        {"question": "q", "answer": "72", "hint": None},
        {"question": "q", "answer": "#### ", "hint": ""},
        {"question": "q", "answer": "####7", "hint": ""},
    ]
    source = written(rows, tmp_path / "rows.jsonl")
    found = table.load("train", source, columns={"context": "hint"}, marker="####")
    assert [(each.question, each.answer) for each in found.problems] == [("Context: It rains.\nq", "72"), ("q", "7")]
    assert dict(found.dropped) == {"its answer has no '####' (row 1)": 1, "empty (row 2)": 1}
    assert found.problems[0].columns == {}


def test_numbers_that_count_as_nothing_are_answers_too(tmp_path: Path) -> None:
    rows = [{"question": "How many?", "answer": 0, "kind": 0}, {"question": "Is it?", "answer": False, "kind": None}]
    found = table.load("train", written(rows[:1], tmp_path / "rows.jsonl")).problems
    found += table.load("train", written(rows[1:], tmp_path / "more.jsonl")).problems
    assert [(each.answer, each.kind) for each in found] == [("0", "0"), ("False", "")]


def test_a_cluster_column_parts_problems_of_one_image_and_joins_those_of_several(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (4, 4), (len(name), 0, 0)).save(tmp_path / name)
    rows = [
        {"question": f"{n}?", "answer": "x", "image": image, "film": film}
        for n, (image, film) in enumerate((("a.png", "f"), ("b.png", "f"), ("b.png", "g"), ("c.png", None)))
    ]
    given = {
        "source": written(rows, tmp_path / "rows.jsonl"), "images": str(tmp_path), "columns": {"cluster": "film"},
    }  # fmt: skip
    found = load("table", **given)
    assert [each.cluster for each in found.problems] == ["f", "f", "g", "c.png"]
    assert [picture.id for picture in found.pictures] == ["a.png", "b.png", "c.png"] and not found.left_out
    assert [each.question for each in load("table", **given, skip=1, take=1).problems] == ["1?", "2?"]
    (tmp_path / "b.png").write_text("torn")
    torn = load("table", **given)
    assert [each.cluster for each in torn.problems] == ["f", "c.png"]
    assert dict(torn.dropped) == {"unreadable (file b.png of problem 1)": 2}


def png(colour: tuple[int, int, int]) -> dict[str, Any]:
    data = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


def test_images_of_another_configuration_are_joined_by_their_id(tmp_path: Path) -> None:
    """A local copy in the layout that datasets have on the hub."""
    import datasets

    root = tmp_path / "copy"
    asked = {"q": ["one?", "two?", "three?"], "answer": ["1", "2", "3"], "seen": ["n1", "n2", "n1"]}
    shown = {"id": ["n2", "n1"], "image": [png((1, 0, 0)), png((2, 0, 0))]}
    features = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image()})
    for name, data in (
        ("asked", datasets.Dataset.from_dict(asked)),
        ("shown", datasets.Dataset.from_dict(shown, features=features)),
    ):
        (root / name).mkdir(parents=True)
        data.to_parquet(str(root / name / "dev-00000-of-00001.parquet"))
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: dev\n    path: {name}/dev-*\n" for name in ("asked", "shown")
    )
    (root / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    given: dict[str, Any] = {
        "source": str(root), "split": "dev", "subset": "asked", "image_subset": "shown",
        "columns": {"question": "q", "image": "seen"},
    }  # fmt: skip
    assert check("table", **given) == (
        f"{root} is a copy of a dataset of the hub: its columns are looked at when it is loaded"
    )
    found = load("table", **given)
    pixels = [Image.open(each.image or "").getpixel((0, 0)) for each in found.problems]
    assert pixels == [(2, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert found.problems[0].cluster == found.problems[2].cluster != found.problems[1].cluster
    assert len(found.pictures) == 2
    with pytest.raises(TaskError, match="asked has no column 'id'; it has answer, q, seen"):
        load("table", **given | {"image_subset": "asked"})
    with pytest.raises(TaskError, match="split dev: cannot be read"):
        load("table", **given | {"image_subset": "nowhere"})
    with pytest.raises(TaskError, match=r"its image is not among those of image_subset \(rows 0, 1, 2\)"):
        load("table", **given | {"columns": {"question": "q", "image": "answer"}})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gold": "letter", "columns": MAP}, "gold is one of label, index, text, not 'letter'"),
        ({"gold": "index"}, r"name their column, columns\.choices"),
        ({"marker": " "}, "marker is the text that the answer stands behind, not ' '"),
        ({"columns": {"choices": "optoins"}}, "no column 'optoins' for choices; it has question, options, right"),
        ({"columns": {"clusters": "right"}}, r"columns maps \['clusters'\], which are none of .*cluster"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    source = written([{"question": "q?", "options": ["x"], "right": "A"}], tmp_path / "rows.jsonl")
    for call in (load, check):
        with pytest.raises(TaskError, match=words) as refused:
            call("table", source=source, **options)
        assert "\n" not in str(refused.value)
