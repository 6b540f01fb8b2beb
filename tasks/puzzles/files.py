"""Puzzles from files: the CSV of Sudoku-Extreme and Maze-Hard (`source,question,answer,rating`), or HRM's folders."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.columns import ON_THE_HUB, is_local, local_columns
from tasks.draw import seed64
from tasks.faults import Faults
from tasks.problem import Problem, Rows, TaskError
from tasks.whole import is_whole
from tasks.written import ENCODING

_FIELDS = ("question", "answer")


@dataclass(frozen=True, slots=True)
class Row:
    """A puzzle as a file has it: `place` is its line in a CSV, its number from 0 in an array, `group` its original."""

    place: int
    question: str
    answer: str
    rating: str
    group: str


def problems(
    split: str, source: str, signs: str, read: Callable[[Row], Problem | str], size: int | None, seed: int
) -> Rows:
    """The puzzles of `source`: all, or `size` of its rows, drawn by `seed`.

    `signs`: what stands for the values 0, 1, … of an array. `read` makes a problem of a row, or says what is wrong with
    it: such rows are left out, counted, and some of them named. Raises `TaskError`, also where no row is left.
    """
    path, unit = _file(source, split)
    rows = _of_folder(path, split, signs) if unit == "row" else _of_csv(path, source)
    if size is not None:
        count = sum(1 for _ in rows)
        if size > count:
            raise TaskError(f"{source}, split {split}: size {size} asks for more than its {count} rows")
        drawn = set(random.Random(seed64("puzzle file", split, seed)).sample(range(count), size))
        again = _of_folder(path, split, signs) if unit == "row" else _of_csv(path, source)
        rows = (row for number, row in enumerate(again) if number in drawn)
    found: list[Problem] = []
    faults = Faults(unit)
    for row in rows:
        made = read(row) if isinstance(row, Row) else "other number of fields"
        if isinstance(made, Problem):
            found.append(made)
        else:
            faults.add(made, row.place if isinstance(row, Row) else row, after=len(found))
    if not found:
        told = "; ".join(f"{number} of {reason}" for reason, number in faults.dropped) or "it is empty"
        raise TaskError(f"{source}, split {split}: no row can be used: {told}")
    return Rows(found, dropped=faults.dropped, faults=faults)


def check(split: str, source: str, size: int | None, seed: int) -> str | None:
    """Raises `TaskError` for a value that cannot be, and where a local source is missing; a line for one on the hub."""
    for name, value, least in (("size", size, 1), ("seed", seed, 0)):
        if value is not None and (not is_whole(value) or value < least):
            raise TaskError(f"{source}: {name} is a whole number of {least} or more, not {value!r}")
    if not Path(source).expanduser().exists() and not is_local(source):
        return ON_THE_HUB.format(source)
    path, unit = _file(source, split)
    if unit == "line":
        _check_header(local_columns(path, split, source), source)
    return None


def glance(split: str, source: str) -> tuple[int | None, int | None]:
    """How many rows a local source has, and the cells of its first; None for each that cannot be told at a glance."""
    if not Path(source).expanduser().exists():
        return None, None
    try:
        path, unit = _file(source, split)
        if unit == "row":
            from tasks.puzzles.arrays import shape

            return shape(path, split)
        first = next((row for row in _of_csv(path, source) if isinstance(row, Row)), None)
        with path.open("rb") as lines:
            count = sum(1 for line in lines if line.strip()) - 1
    except (TaskError, OSError):
        return None, None  # A line on the data says so.
    return count, len(first.question) if first else None


def _file(source: str, split: str) -> tuple[Path, str]:
    """Where the rows are, and what they are counted in: `line` of a CSV, `row` of a folder of arrays."""
    path = Path(source).expanduser()
    if path.is_file():
        if path.suffix != ".csv":
            raise TaskError(f"{source}: neither a CSV file nor a folder")
        return path, "line"
    if path.is_dir():
        if (path / split / "dataset.json").is_file():
            return path, "row"
        if (path / f"{split}.csv").is_file():
            return path / f"{split}.csv", "line"
        raise TaskError(f"{source}: has neither {split}.csv nor {split}/dataset.json")
    if is_local(source):
        raise TaskError(f"{source}: no such file or folder")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(source, f"{split}.csv", repo_type="dataset")), "line"
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise TaskError(f"{source}: {split}.csv cannot be had from the hub ({reason})") from error


def _of_csv(path: Path, source: str) -> Iterator[Row | int]:
    """The rows; the line alone of one with another number of fields than the header. Blank lines are no rows."""
    with path.open(encoding=ENCODING, newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            _check_header(header, source)
            for fields in reader:
                if len(fields) < len(_FIELDS) and not "".join(fields).strip():
                    continue
                if len(fields) != len(header):
                    yield reader.line_num
                    continue
                row = dict(zip(header, fields, strict=True))
                place = reader.line_num
                yield Row(place, row["question"], row["answer"], row.get("rating", ""), str(place))
        except (csv.Error, UnicodeDecodeError) as error:
            raise TaskError(f"{source}, line {reader.line_num + 1}: cannot be read ({error})") from None


def _check_header(names: Sequence[str], source: str) -> None:
    if missing := [name for name in _FIELDS if name not in names]:
        there = ", ".join(names) or "none"
        raise TaskError(f"{source}: the first line names no column {missing[0]!r}; it has {there}")


def _of_folder(path: Path, split: str, signs: str) -> Iterator[Row | int]:
    from tasks.puzzles.arrays import read

    arrays = read(path, split)
    if arrays.values > len(signs):
        raise TaskError(
            f"{path}, split {split}: its {arrays.values} values of cells are more than the {len(signs)} of such a "
            f"puzzle ({signs!r})"
        )

    def text(cells: Any) -> str:
        return "".join(signs[value] if value >= 0 else "?" for value in cells)

    for place, (question, answer, group) in enumerate(zip(arrays.inputs, arrays.labels, arrays.groups, strict=True)):
        yield Row(place, text(question.tolist()), text(answer.tolist()), "", f"group {group}")
