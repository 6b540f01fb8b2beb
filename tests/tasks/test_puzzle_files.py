"""Puzzles from CSV files and arrays: read as written, broken rows counted and named, mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewards.puzzles import maze_grid, sudoku
from tasks.problem import TaskError
from tasks.puzzles import arrays
from tasks.puzzles.symmetry import copies, turned
from tasks.registry import check, columns, load

SOLVED = "1234341221434321"
CLUES = "1......2...34..1"
"""Has no other solution, and no clue to spare."""
HEADER = "source,question,answer,rating\n"


def csv_of(path: Path, rows: list[tuple[str, str]], rating: str = "0") -> str:
    path.write_text(HEADER + "".join(f"mine,{question},{answer},{rating}\n" for question, answer in rows))
    return str(path)


def flat(task: str, side: int, size: int, empty: str) -> list[tuple[str, str]]:
    """Puzzles of a task in the format of the public files."""
    problems = load(task, "train", side=side, size=size).problems
    return [tuple("".join(t.split()).replace(*empty) for t in (p.question, p.answer)) for p in problems]  # type: ignore[misc]


def test_a_sudoku_csv_gives_the_puzzles_that_were_written(tmp_path: Path) -> None:
    made = load("sudoku", "train", side=9, size=5).problems
    rows = [("".join(p.question.split()).replace("_", "."), "".join(p.answer.split())) for p in made]
    source = csv_of(tmp_path / "train.csv", rows, "120")
    for place in (source, str(tmp_path)):
        found = load("sudoku-file", "train", source=place)
        assert [(p.question, p.answer, p.columns) for p in found.problems] == [
            (p.question, p.answer, p.columns) for p in made
        ]
        assert not found.dropped
        assert {p.kind for p in found.problems} == {"rating 100 or more"}
        assert [p.id for p in found.problems] == ["2", "3", "4", "5", "6"], "their lines"
    assert columns("sudoku-file", source=source) == {"puzzle"} and columns("maze-file", source=source) == {"maze"}
    gold = [p.answer for p in found.problems]
    assert sudoku(gold, gold, puzzle=[p.columns["puzzle"] for p in found.problems]) == [1.0] * 5


def test_a_maze_csv_gives_the_mazes_that_were_written(tmp_path: Path) -> None:
    made = load("maze", "train", side=8, size=5).problems
    rows = [("".join(p.question.split()).replace(".", " "), "".join(p.answer.split()).replace(".", " ")) for p in made]
    found = load("maze-file", "test", source=csv_of(tmp_path / "mazes.csv", rows), unique=True)
    assert [(p.question, p.answer, p.columns, p.kind) for p in found.problems] == [
        (p.question, p.answer, p.columns, p.kind) for p in made
    ]
    gold = [p.answer for p in found.problems]
    assert maze_grid(gold, gold, maze=[p.columns["maze"] for p in found.problems]) == [1.0] * 5


def test_broken_sudoku_rows_are_counted_by_reason_and_named(tmp_path: Path) -> None:
    rows = [
        (CLUES, SOLVED),
        (CLUES[1:], SOLVED),
        (CLUES, SOLVED[1:]),
        (CLUES * 2, SOLVED * 2),
        ("", ""),
        (CLUES.replace("4", "5"), SOLVED),
        (CLUES, SOLVED.replace("1", ".")),
        ("2" + CLUES[1:], SOLVED),
        (".2.." + CLUES[4:], SOLVED[1] + SOLVED[0] + SOLVED[2:]),
        ("." * 16, SOLVED),
        ("1" + "." * 15, "1" + "2" * 15),
        ("11" + "." * 14, "11" + SOLVED[2:]),
        (CLUES.replace("4", "."), SOLVED),
    ]
    source = csv_of(tmp_path / "broken.csv", rows)
    with Path(source).open("a") as file:
        file.write(f"mine,{CLUES}\n\n  \nmine,{SOLVED},{SOLVED},0\n")
    found = load("sudoku-file", "train", source=source)
    assert [p.id for p in found.problems] == ["2"]
    assert dict(found.dropped) == {
        "wrong length (lines 3, 4, 5, …)": 4,
        "other characters (lines 7, 8)": 2,
        "clue contradicts answer (lines 9, 10)": 2,
        "several solutions (lines 11, 12, 14)": 3,
        "no solution (line 13)": 1,
        "other number of fields (line 15)": 1,
        "no empty cell (line 18)": 1,
    }
    assert 1 + sum(number for _, number in found.dropped) == len(rows) + 2, "blank lines are no rows"
    many = load("sudoku-file", "train", source=source, unique=False)
    assert [p.id for p in many.problems] == ["2", "11", "14"]
    assert dict(many.dropped)["answer is no solution (line 12)"] == 1
    wrong = csv_of(tmp_path / "wrong.csv", [(CLUES, SOLVED), (CLUES, "1324" + SOLVED[4:])])
    assert dict(load("sudoku-file", "train", source=wrong).dropped) == {"answer is no solution (line 3)": 1}


def test_broken_maze_rows_are_counted_by_reason_and_named(tmp_path: Path) -> None:
    rows = [
        ("S##   ##G", "S##ooo##G"),
        ("S##   ##", "S##ooo##"),
        ("S##   ##G", "S##ooo##"),
        ("S##  x##G", "S##ooo##G"),
        ("S##   ## ", "S##ooo## "),
        ("S##   SSG", "S##oooSSG"),
        ("S ## ####", "So## ####"),
        ("S##   ##G", "S##oo ##G"),
        ("S##   ##G", "S##ooo###"),
        ("S##  ###G", "S##oo###G"),
        ("S       G", "Soo  o  G"),
    ]
    source = csv_of(tmp_path / "broken.csv", rows)
    found = load("maze-file", "train", source=source)
    assert [p.id for p in found.problems] == ["2", "12"]
    assert dict(found.dropped) == {
        "wrong length (lines 3, 4)": 2,
        "other characters (line 5)": 1,
        "not one start and one goal (lines 6, 7, 8)": 3,
        "answer marks no shortest path (line 9)": 1,
        "answer is another maze (line 10)": 1,
        "no solution (line 11)": 1,
    }
    assert dict(load("maze-file", "train", source=source, unique=True).dropped)["several solutions (line 12)"] == 1


def test_a_slice_tells_of_its_own_rows(tmp_path: Path) -> None:
    good = flat("sudoku", 4, 6, "_.")
    bad = ("x", "y")
    source = csv_of(tmp_path / "train.csv", [bad, good[0], good[1], bad, good[2], ("1", "1"), good[3], *good[4:], bad])

    def dropped(**part: int) -> dict[str, int]:
        return dict(load("sudoku-file", "train", source=source, **part).dropped)

    whole = {"wrong length (lines 2, 5, 7, …)": 4}
    assert dropped() == whole == dropped(take=6)
    assert dropped(take=2) == {"wrong length (line 2)": 1}
    assert dropped(skip=2, take=1) == {"wrong length (line 5)": 1}
    assert dropped(skip=3, take=2) == {"wrong length (line 7)": 1}
    assert dropped(skip=5) == {"wrong length (line 11)": 1}
    assert dropped(skip=1, take=1) == {}


def test_size_draws_rows_by_a_seed(tmp_path: Path) -> None:
    rows = flat("sudoku", 4, 40, "_.")
    source = csv_of(tmp_path / "train.csv", [*rows, ("x", "y")])

    def ids(**options: Any) -> list[str]:
        return [p.id for p in load("sudoku-file", "train", source=source, **options).problems]

    first = ids(size=20, seed=1)
    assert first == ids(size=20, seed=1) != ids(size=20, seed=2)
    assert 19 <= len(first) <= 20 and first == sorted(first, key=int)
    assert len(ids(size=41)) == 40
    with pytest.raises(TaskError, match="size 42 asks for more than its 41 rows"):
        ids(size=42)


def test_arrays_are_read_as_written_and_copies_are_one_cluster(tmp_path: Path) -> None:
    made = load("sudoku", "train", side=9, size=3).problems
    boards = arrays.of_problems(made, "_123456789")
    many = [np.repeat(each, 4, axis=0) for each in (boards.inputs, boards.labels)]
    copied = copies(many[0], many[1], 9, np.random.default_rng(0))
    arrays.write(tmp_path, "train", arrays.Arrays(*copied, np.repeat(boards.groups, 4), 10))
    arrays.write(tmp_path, "test", boards)
    back = arrays.read(tmp_path, "train")
    assert (back.inputs == copied[0]).all() and (back.labels == copied[1]).all() and back.values == 10
    assert back.groups.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for split, cluster in (("train", 4), ("test", 1)):
        problems = load("sudoku-file", split, source=str(tmp_path)).problems
        assert [p.cluster for p in problems] == [f"group {group}" for group in range(3) for _ in range(cluster)]
    assert [(p.question, p.answer) for p in problems] == [(p.question, p.answer) for p in made]
    # Groups stay groups when they are written once more, and rows of a group come together.
    train = load("sudoku-file", "train", source=str(tmp_path)).problems
    mixed = arrays.of_problems([train[number] for number in (5, 0, 6, 1)], "_123456789")
    assert mixed.groups.tolist() == [0, 0, 1, 1]
    assert (mixed.inputs == back.inputs[[5, 6, 0, 1]]).all() and (mixed.labels == back.labels[[5, 6, 0, 1]]).all()


def test_arrays_have_the_layout_that_hrm_reads(tmp_path: Path) -> None:
    """As its `dataset/build_sudoku_dataset.py` writes it and its `puzzle_dataset.py` reads it."""
    mazes = arrays.of_problems(load("maze", "train", side=6, size=2).problems, "#.SGo")
    turns = [np.stack([turned(board, turn, 6) for board in mazes.inputs for turn in (0, 1, 4)])]
    turns.append(np.stack([turned(board, turn, 6) for board in mazes.labels for turn in (0, 1, 4)]))
    arrays.write(tmp_path, "train", arrays.Arrays(turns[0], turns[1], np.repeat([0, 1], 3), 5))
    assert json.loads((tmp_path / "identifiers.json").read_text()) == ["<blank>"]
    assert json.loads((tmp_path / "train/dataset.json").read_text()) == {
        "pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": 6, "seq_len": 36,
        "num_puzzle_identifiers": 1, "total_groups": 2, "mean_puzzle_examples": 1, "sets": ["all"],
    }  # fmt: skip
    stored = {path.stem.removeprefix("all__"): np.load(path) for path in (tmp_path / "train").glob("*.npy")}
    assert stored["puzzle_identifiers"].tolist() == [0] * 6
    assert stored["puzzle_indices"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert stored["group_indices"].tolist() == [0, 3, 6]
    assert (stored["inputs"] == turns[0] + 1).all() and set(stored["labels"].flat) == {1, 2, 3, 4, 5}
    problems = load("maze-file", "train", source=str(tmp_path)).problems
    assert [p.cluster for p in problems] == ["group 0"] * 3 + ["group 1"] * 3


def test_padding_and_ignored_labels_are_no_cells(tmp_path: Path) -> None:
    arrays.write(tmp_path, "train", arrays.Arrays(np.array([[0, 1, -1]]), np.array([[1, -1, -1]]), np.array([0]), 2))
    back = arrays.read(tmp_path, "train")
    assert back.inputs.tolist() == [[0, 1, -1]] and back.labels.tolist() == [[1, -1, -1]]
    meta = json.loads((tmp_path / "train/dataset.json").read_text())
    (tmp_path / "train/dataset.json").write_text(json.dumps(meta | {"ignore_label_id": 2}))
    assert arrays.read(tmp_path, "train").labels.tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("dataset.json", None, "has neither train.csv nor train/dataset.json"),
        ("dataset.json", b"{", r"dataset.json: cannot be read"),
        ("dataset.json", b"{}", r"dataset.json: has no pad_id, ignore_label_id, vocab_size"),
        ("dataset.json", {"sets": ["all", "more"]}, "only a folder with the one set `all`"),
        ("dataset.json", {"seq_len": 80}, r"inputs \[3, 16\] and labels \[3, 16\] are not both boards of 80 cells"),
        ("dataset.json", {"vocab_size": 4}, "tokens beyond 0 to 3"),
        ("dataset.json", {"vocab_size": "4"}, "vocab_size is a whole number, not '4'"),
        ("dataset.json", {"total_groups": 4}, r"in 4 steps \(total_groups\)"),
        ("all__inputs.npy", None, "all__inputs.npy: cannot be read"),
        ("all__labels.npy", b"no array", "all__labels.npy: cannot be read"),
        ("all__labels.npy", np.zeros((3, 15), np.int32), r"labels \[3, 15\]"),
        ("all__labels.npy", np.zeros((3, 16)), "holds no whole numbers"),
        ("all__puzzle_indices.npy", np.array([0, 1, 3]), r"group_indices.npy does not rise from 0 to 2"),
        ("all__puzzle_indices.npy", np.array([0, 1, 2, 2]), r"puzzle_indices.npy does not rise from 0 to 3"),
        ("all__group_indices.npy", np.array([1, 2, 3]), r"group_indices.npy does not rise from 0 to 3"),
    ],
)
def test_a_broken_folder_is_one_line(name: str, content: Any, words: str, tmp_path: Path) -> None:
    boards = arrays.of_problems(load("sudoku", "train", size=3).problems, "_1234")
    arrays.write(tmp_path, "train", boards)
    path = tmp_path / "train" / name
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | content))
    else:
        np.save(path, content)
    with pytest.raises(TaskError, match=words) as refused:
        load("sudoku-file", "train", source=str(tmp_path))
    assert "\n" not in str(refused.value)


def test_arrays_of_a_maze_are_no_sudoku_and_a_sudoku_no_maze(tmp_path: Path) -> None:
    arrays.write(tmp_path, "train", arrays.of_problems(load("sudoku", "train", side=9, size=2).problems, "_123456789"))
    with pytest.raises(TaskError, match=r"its 10 values of cells are more than the 5 of such a puzzle \('# SGo'\)"):
        load("maze-file", "train", source=str(tmp_path))
    with pytest.raises(TaskError, match="the sign '#', which is none of '_1234'"):
        arrays.of_problems(load("maze", "train", side=4, least_steps=2, size=1).problems, "_1234")
    with pytest.raises(TaskError, match="of one size"):
        arrays.of_problems([*load("maze", size=1).problems, *load("maze", side=9, size=1).problems], "#.SGo")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "solution,question\n1,2\n", r"names no column 'answer'; it has solution, question"),
        ("a.csv", "", "empty"),
        ("a.csv", HEADER, "no row can be used: it is empty"),
        ("a.csv", HEADER + "m,12,34,0\nm,,,\n", r"no row can be used: 2 of wrong length \(lines 2, 3\)"),
        ("a.csv", HEADER + f"m,{CLUES},{SOLVED},0\n\udcff", r"cannot be read \("),
        ("a.json", "[]", "neither a CSV file nor a folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(name: str, text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(TaskError, match=words) as refused:
        load("sudoku-file", "train", source=str(path))
    assert "\n" not in str(refused.value)


def test_a_plan_looks_at_what_is_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskError, match=r"\./none: no such file or folder"):
        check("maze-file", "train", source="./none")
    with pytest.raises(TaskError, match=r"has neither test\.csv"):
        check("maze-file", "test", source=str(tmp_path))
    with pytest.raises(TaskError, match="size is a whole number of 1 or more, not 0"):
        check("maze-file", "test", source=str(tmp_path), size=0)
    assert "on the hub" in (check("sudoku-file", "train", source="sapientinc/sudoku-extreme") or "")
    assert check("sudoku-file", "train", source=csv_of(tmp_path / "train.csv", [(CLUES, SOLVED)])) is None
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TaskError, match=r"nobody/none: train.csv cannot be had from the hub \(") as refused:
        load("sudoku-file", "train", source="nobody/none")
    assert "\n" not in str(refused.value)
