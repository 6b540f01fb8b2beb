"""The columns of a local table, read from its schema or first rows: quick, and without the datasets library."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.problem import TaskError
from tasks.written import ENCODING

FORMATS = (".csv", ".json", ".jsonl", ".parquet")
ON_THE_HUB = "{} is a dataset on the hub: its columns are looked at when it is loaded"
_LOOK = 1 << 20


def is_local(source: str) -> bool:
    """Whether a source that is not there was meant as a path: hub names have one slash and no table's ending."""
    return source.startswith((".", "/", "~")) or source.count("/") != 1 or Path(source).suffix in FORMATS


def local_columns(path: Path, split: str, source: str) -> list[str]:
    """Their names, in the file's order. `source` is how the user calls `path`. Raises `TaskError`."""
    try:
        if path.is_dir():
            info = next(p / "dataset_info.json" for p in (path, path / split) if (p / "dataset_info.json").is_file())
            return list(json.loads(info.read_text(encoding="utf-8"))["features"])
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            return list(parquet.read_schema(path).names)
        with path.open(encoding=ENCODING, newline="") as file:
            if path.suffix == ".csv":
                return next(csv.reader(file))
            if path.suffix in FORMATS:
                text = file.read(_LOOK)
                if not text.strip():
                    raise TaskError(f"{source}: cannot be read (it is empty)")
                return list(dict.fromkeys(key for row in first_rows(text) for key in row))
    except FileNotFoundError:
        raise TaskError(f"{source}: no such file or saved dataset") from None
    except StopIteration:
        raise TaskError(f"{source}: empty, or no saved dataset with a split {split!r}") from None
    except TaskError:
        raise
    except (OSError, ValueError, KeyError, AttributeError) as error:  # ArrowInvalid and JSON errors are ValueErrors.
        raise TaskError(f"{source}: cannot be read ({str(error).splitlines()[0][:200]})") from error
    raise TaskError(f"{source}: not one of {', '.join(FORMATS)}")


def first_rows(text: str) -> Iterator[Mapping[str, Any]]:
    """The objects that a JSON array, or a file of JSON lines, begins with; at least one, or a ValueError."""
    decoder, place, found = json.JSONDecoder(), 0, 0
    while True:
        while place < len(text) and text[place] in "[, \t\r\n":
            place += 1
        try:
            row, place = decoder.raw_decode(text, place)
        except ValueError:
            if not found:
                raise
            return
        found += 1
        yield row
