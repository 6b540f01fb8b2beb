"""What a stage had made under settings that no longer hold, put aside until the new attempt gets something done.

A stage is refused most often before its first row or step: by an option that its data or weights do not bear out. The
finished result is still there then, and its training need not be done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.files import remove, temporary_name, write_json
from pipelines.manifest import ATTEMPT_FILE, MANIFEST_FILE
from pipelines.shards import KEY_FILE

FOLDER = ".before"
"""Inside the stage's directory."""


class Aside:
    """The finished outputs of one stage, but for shards, which know by their own key whether they still hold.

    `attempt.json` is moved last, and back first: where it is says what a kill has left half done. The manifest is moved
    first, and back last: it stands beside whole outputs alone.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._folder = directory / FOLDER
        self._outputs, self._records = self._folder / "outputs", self._folder / "metrics.json"

    def put(self, records: list[dict[str, Any]]) -> None:
        """Puts the outputs of a finished stage aside, and what it has logged."""
        self._outputs.mkdir(parents=True, exist_ok=True)
        write_json(self._records, records)
        _move(self.directory, self._outputs, first=MANIFEST_FILE, last=ATTEMPT_FILE)

    def records(self) -> list[dict[str, Any]] | None:
        """What the stage had logged; None where nothing is aside."""
        return json.loads(self._records.read_text(encoding="utf-8")) if self._records.is_file() else None

    def put_back(self) -> None:
        """In place of the attempt that has begun since."""
        if (self._outputs / ATTEMPT_FILE).is_file():  # else the outputs are half put aside, or half put back
            clear(self.directory)
        if self._outputs.is_dir():
            _move(self._outputs, self.directory, first=ATTEMPT_FILE, last=MANIFEST_FILE)
        self.drop()

    def drop(self) -> None:
        """The new attempt has something of its own."""
        if self._folder.exists():
            # At one stroke: half a folder would be put back.
            going = temporary_name(self._folder)
            remove(going)
            self._folder.rename(going)
            remove(going)


def clear(directory: Path) -> None:
    """Removes what a stage has made, but for shards and what is put aside. The number of its attempt goes first."""
    remove(directory / ATTEMPT_FILE)
    for path in _outputs(directory):
        remove(path)


def put_aside(run: Path) -> list[Aside]:
    """What the stages of a run have aside: those whose attempt was killed before it got anything done."""
    return [Aside(folder.parent) for place in ("*", "seed-*/*") for folder in run.glob(f"{place}/{FOLDER}")]


def _move(source: Path, target: Path, first: str, last: str) -> None:
    rank = {source / first: 0, source / last: 2}
    for path in sorted(_outputs(source), key=lambda path: (rank.get(path, 1), path)):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)


def _outputs(directory: Path) -> Iterator[Path]:
    """The largest files and folders without shards in them."""
    kept = {file.parent for file in directory.rglob(KEY_FILE)}

    def inside(folder: Path) -> Iterator[Path]:
        for path in sorted(folder.iterdir()):
            if path in kept or path.name == FOLDER:
                continue
            if any(path in shard.parents for shard in kept):
                yield from inside(path)
            else:
                yield path

    return inside(directory)
