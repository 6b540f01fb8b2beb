"""Files that are either whole or absent, whenever the process or the machine dies.

Everything a run keeps is put in place by `publish`: written under a temporary name, flushed to the disk, renamed.
Temporary names start with `.partial-`, so that what a killed process left can be told apart and swept away.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL = ".partial-"


def publish(temporary: Path, final: Path) -> None:
    """Flushes the file or directory `temporary` to the disk and renames it to `final`, which it replaces."""
    for path in [*temporary.rglob("*"), temporary] if temporary.is_dir() else [temporary]:
        flush(path)
    if temporary.is_dir() and final.exists():
        # A directory that holds files cannot be replaced by one rename; between these two neither name exists.
        shutil.rmtree(final)
    temporary.replace(final)
    flush(final.parent)


def flush(path: Path) -> None:
    """fsync: a file's content, or a directory's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(final: Path) -> Path:
    """Where `whole` lets a file or directory be made."""
    return final.with_name(PARTIAL + final.name)


@contextmanager
def whole(final: Path) -> Iterator[Path]:
    """A temporary path to write a file or make a directory at; it becomes `final` when the block ends without error.

    with whole(directory / "triads.parquet") as path:
        pq.write_table(table, path)
    """
    temporary = temporary_name(final)
    remove(temporary)
    try:
        yield temporary
        publish(temporary, final)
    except BaseException:
        remove(temporary)
        raise


def write_text(final: Path, text: str) -> None:
    """Writes UTF-8 text as one whole file."""
    with whole(final) as path:
        path.write_text(text, encoding="utf-8")


def write_json(final: Path, value: Any) -> None:
    """Writes a JSON file, keys in the order given, non-ASCII text kept readable."""
    write_text(final, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def sha256_of(path: Path) -> str:
    """Of a file's content, read piece by piece; 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Removes a file, a link or a directory with all it holds; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(directory: Path) -> None:
    """Removes what killed writers left anywhere under `directory`."""
    for path in sorted(directory.rglob(PARTIAL + "*")):
        remove(path)
