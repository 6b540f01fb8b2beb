"""Rows of a long stage, kept chunk by chunk, so that a killed stage goes on where it was.

The input is cut into fixed chunks; the rows of each chunk make one numbered file that is whole or absent. Since a
chunk's rows depend on that chunk alone, an interrupted and resumed stage ends with the files of an undisturbed one:
at most the chunk in work is done again, none is lost, none comes twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.errors import Interrupted, RunError
from pipelines.files import remove, sweep, write_json, write_text
from pipelines.stop import Stop

if TYPE_CHECKING:
    from pipelines.progress import Progress

KEY_FILE = "key.json"
Item = TypeVar("Item")
Row = Mapping[str, Any]


class Shards:
    """The shards in `directory`, made under `key`: whatever else, besides the items, their rows depend on.

    A directory made under another key, or for another number of items or chunk size, is emptied before use. The items
    themselves are not looked at: put what determines them (an upstream fingerprint, a data section) into the key.
    """

    def __init__(self, directory: Path, key: Mapping[str, Any], stop: Stop | None = None) -> None:
        self.directory = directory
        # Through JSON, so that a key compares equal to the one read back (tuples are lists there).
        self._key: Any = json.loads(json.dumps(key))
        self._stop = stop or Stop()

    def run(
        self,
        items: Sequence[Item],
        size: int,
        work: Callable[[Sequence[Item]], Iterable[Row]],
        bar: Progress | None = None,
    ) -> None:
        """Calls `work` on each chunk of `size` items that has no file yet and keeps the rows it gives (JSON values).

        `work` raises where a call failed: a failure is no result and stays owed. `bar` is told how many items are
        done, those of earlier attempts too. Raises `Interrupted` between two chunks once a stop is requested.
        """
        if size < 1:
            raise ValueError(f"a chunk holds at least one item, not {size}")
        wanted = {"key": self._key, "items": len(items), "size": size}
        if self._header() != wanted:
            remove(self.directory)
            self.directory.mkdir(parents=True)
            write_json(self.directory / KEY_FILE, wanted)
        sweep(self.directory)
        for number, start in enumerate(range(0, len(items), size)):
            chunk = items[start : start + size]
            path = self._path(number)
            before = path.exists()
            if not before:
                if self._stop.requested:
                    raise Interrupted(f"{start} of {len(items)} rows are kept in {self.directory}")
                lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in work(chunk)]
                write_text(path, "".join(lines))
            if bar is not None:
                (bar.skip if before else bar.advance)(len(chunk))

    @property
    def complete(self) -> bool:
        """True when every chunk is there, and was made under this key."""
        header = self._header()
        if header is None or header["key"] != self._key:
            return False
        return all(self._path(number).exists() for number in range(_chunks(header)))

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows, in the order of the items. Raises `RunError` unless complete."""
        if not self.complete:
            raise RunError(f"{self.directory}: shards are missing or made under other settings; run the stage again")
        for number in range(_chunks(self._header() or {})):
            with self._path(number).open(encoding="utf-8") as lines:
                for line in lines:
                    yield json.loads(line)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06d}.jsonl"

    def _header(self) -> dict[str, Any] | None:
        path = self.directory / KEY_FILE
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _chunks(header: Mapping[str, Any]) -> int:
    return -(-int(header["items"]) // int(header["size"]))
