"""How many rows a task's split has and how long they are, told without loading it: a glance, for a plan."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.columns import FORMATS, first_rows
from tasks.registry import function, units
from tasks.remote import is_url
from tasks.written import ENCODING

_SAMPLE, _LOOK = 64, 1 << 20
_TEXT = ("string", "large_string")
"""Columns of a Parquet or Arrow file that are read."""


@dataclass(frozen=True, slots=True)
class Glance:
    """Of a slice of a split; None for what cannot be told at a glance. Lengths are means, in characters."""

    problems: float | None = None
    pictures: float | None = None
    question: float | None = None
    answer: float | None = None
    cells: int | None = None
    """Of a grid."""

    def part(self, skip: int, take: int | None) -> Glance:
        """Of a slice of so many units: images where there are any, else problems. Questions are spread evenly."""
        whole = self.pictures or self.problems
        if whole is None:
            return self if take is None else replace(self, problems=take, pictures=None)
        left = max(0, whole - skip if take is None else min(take, whole - skip))
        share = left / whole if whole else 0.0
        return replace(
            self,
            problems=None if self.problems is None else self.problems * share,
            pictures=None if self.pictures is None else self.pictures * share,
        )


def glance(task: str, split: str = "train", skip: int = 0, take: int | None = None, **options: Any) -> Glance:
    """What can be told of a slice of `task`. Nothing is fetched, made or decoded. Raises `TaskError`."""
    if any(is_url(value) for value in options.values()):
        return Glance().part(skip, take)
    if task == "table":
        return _table(split, **options).part(skip, take)
    own = function(task, "glance")
    if own is not None:
        found: Glance = own(split, **options)
        return found.part(skip, take)
    count = function(task, "count")
    if count is None:
        return Glance().part(skip, take)
    number = count(split, **options)
    return (Glance(number) if units(task) == "problems" else Glance(pictures=number)).part(skip, take)


def of_texts(pairs: Iterable[tuple[str, str]], problems: float, pictures: float | None) -> Glance:
    """A glance with the mean lengths of these questions and answers."""
    texts = list(pairs)
    if not texts:
        return Glance(problems, pictures)
    return Glance(
        problems,
        pictures,
        sum(len(question) for question, _ in texts) / len(texts),
        sum(len(answer) for _, answer in texts) / len(texts),
    )


def _table(split: str, source: str, columns: Mapping[str, str] | None = None, **others: Any) -> Glance:
    """Of a local file or saved dataset, by its first rows, from whose size the length of a JSON array follows."""
    path = Path(source).expanduser()
    saved = next((each for each in (path, path / split) if (each / "state.json").is_file()), None)
    if saved is None and (not path.is_file() or path.suffix not in FORMATS):
        return Glance()
    names = dict(columns or {})
    count, rows = _saved(saved) if saved else (_parquet if path.suffix == ".parquet" else _lines)(path)
    asked = [_asked(row, names) for row in rows]
    pictured = any(row.get(names.get("image", "image")) for row in rows)
    return of_texts([pair for pair in asked if any(pair)], count, count if pictured else None)


def _asked(row: Mapping[str, Any], names: Mapping[str, str]) -> tuple[str, str]:
    turns = row.get(names.get("conversations", "conversations"))
    if isinstance(turns, list) and turns:
        said = [str(turn.get("value", turn.get("content", ""))) for turn in turns[:2]]
        return said[0], said[1] if len(said) > 1 else ""
    before = [str(row[names[key]]) for key in ("context", "choices") if key in names and row.get(names[key])]
    question, answer = (str(row.get(names.get(key, key)) or "") for key in ("question", "answer"))
    return "\n".join([*before, question]), answer


def _parquet(path: Path) -> tuple[float, Sequence[Mapping[str, Any]]]:
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(path)
    text = [field.name for field in file.schema_arrow if str(field.type) in _TEXT]
    rows = next(file.iter_batches(_SAMPLE, columns=text)).to_pylist() if file.metadata.num_rows else []
    return file.metadata.num_rows, rows


def _saved(folder: Path) -> tuple[float, Sequence[Mapping[str, Any]]]:
    import pyarrow as arrow

    count, rows = 0, list[Mapping[str, Any]]()
    for each in json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]:
        with arrow.memory_map(str(folder / each["filename"])) as file, arrow.ipc.open_stream(file) as batches:
            text = [field.name for field in batches.schema if str(field.type) in _TEXT]
            for batch in batches:
                count += batch.num_rows
                rows += batch.select(text).slice(0, _SAMPLE - len(rows)).to_pylist()
    return count, rows


def _lines(path: Path) -> tuple[float, Sequence[Mapping[str, Any]]]:
    with path.open(encoding=ENCODING, newline="", errors="replace") as file:
        if path.suffix == ".csv":
            rows: list[Mapping[str, Any]] = [row for row, _ in zip(csv.DictReader(file), range(_SAMPLE), strict=False)]
        else:
            rows = [row for row, _ in zip(first_rows(file.read(_LOOK)), range(_SAMPLE), strict=False)]
    if path.suffix == ".json":
        each = sum(len(json.dumps(row, ensure_ascii=False).encode()) + 2 for row in rows) / max(1, len(rows))
        return max(len(rows), round(path.stat().st_size / each)) if each else 0, rows
    if path.suffix == ".csv":
        csv.field_size_limit(sys.maxsize)  # A cell may be a long document, with line breaks in it.
        with path.open(encoding=ENCODING, newline="", errors="replace") as file:
            return sum(1 for cells in csv.reader(file) if cells) - 1, rows
    with path.open("rb") as whole:
        return sum(1 for line in whole if line.strip()), rows
