"""The rows of a local CSV or JSON file as they are written.

Libraries guess the type of a whole column: `1,2,,4` becomes 1.0, 2.0, 4.0, `060` is 60, `NA` is nothing, a date gets a
time of day. A gold answer must be what stands in the file.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.problem import TaskError

ENCODING = "utf-8-sig"
"""UTF-8, with the mark in front that spreadsheets write or without it."""
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,17})?(?:[eE][+-]?\d{1,3})?", re.ASCII)
"""As JSON has it, and not too long for one: a code such as 007 is none."""


@dataclass(frozen=True, slots=True)
class Written:
    """A table of its rows. `features`: the types of its columns, of which nothing is known."""

    column_names: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    features: Mapping[str, object] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.rows)


def read(path: Path, source: str) -> Written:
    """The rows of a file that ends in `.csv`, `.json` (a list of objects, or one in each line) or `.jsonl`.

    Cells of a CSV are texts. A row has all columns; None where it has no value. `source` is how the user calls `path`.
    Raises `TaskError`, which names the first line that cannot be read, from 1, and says why.
    """
    try:
        content = path.read_bytes()
        text = content.decode(ENCODING)
    except UnicodeDecodeError as error:
        raise _unreadable(source, content.count(b"\n", 0, error.start) + 1, "it is not UTF-8") from None
    except OSError as error:
        raise TaskError(f"{source}: cannot be read ({error.strerror})") from error
    del content
    if not text.strip():
        raise TaskError(f"{source}: cannot be read (it is empty)")
    found = list(_csv(text, source) if path.suffix == ".csv" else _json(text, source))
    if not found:
        raise TaskError(f"{source}: cannot be read (it has no row)")
    names = list(dict.fromkeys(name for row in found for name in row))
    whole = (row if len(row) == len(names) else {name: row.get(name) for name in names} for row in found)
    return Written(names, list(whole))


def numbers(cells: Sequence[str | None]) -> list[Any]:
    """The cells of a CSV's column as numbers where every one that is not empty is such, else as they are; None for the
    empty ones."""
    filled = [cell for cell in cells if cell]
    if not all(_NUMBER.fullmatch(cell.strip()) for cell in filled):
        return [cell or None for cell in cells]
    return [json.loads(cell) if cell else None for cell in cells]


def _csv(text: str, source: str) -> Iterator[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)  # A cell may be a long document.
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    while True:
        line = rows.line_num + 1  # where the row begins: its cells may hold line breaks
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise _unreadable(source, line, str(error)) from None
        if not cells:
            continue
        if not header:
            header = cells
            if twice := [name for place, name in enumerate(cells) if name in cells[:place]]:
                raise _unreadable(source, line, f"two columns are called {twice[0]!r}")
        elif len(cells) != len(header):
            raise _unreadable(source, line, f"it has {len(cells)} cells, and the header has {len(header)}")
        else:
            yield dict(zip(header, cells, strict=True))


def _json(text: str, source: str) -> Iterator[dict[str, Any]]:
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text, parse_constant=_constant)
        except ValueError as error:
            raise _unreadable(source, getattr(error, "lineno", 1), getattr(error, "msg", str(error))) from None
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                raise TaskError(f"{source}, row {number}: cannot be read (it is no object with columns)")
            yield row
        return
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_constant)
        except ValueError as error:
            why = f"no JSON object in one line: {getattr(error, 'msg', error)}"
            raise _unreadable(source, number, why) from None
        if not isinstance(row, dict):
            raise _unreadable(source, number, "it is no object with columns")
        yield row


def _constant(name: str) -> float | None:
    """Of JSON that pandas writes, where NaN is a value that is missing."""
    return None if name == "NaN" else float(name)


def _unreadable(source: str, line: int, why: str) -> TaskError:
    return TaskError(f"{source}, line {line}: cannot be read ({why})")
