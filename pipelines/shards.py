"""Rows of a long stage, kept chunk by chunk, so that a killed stage goes on where it was.

The input is cut into fixed chunks; the rows of each chunk make one numbered file that is whole or absent. Since a
chunk's rows depend on that chunk alone, an interrupted and resumed stage ends with the files of an undisturbed one:
at most the chunks in work (one, unless the engine has several workers) are done again, none is lost, none comes twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.errors import Interrupted, RunError
from pipelines.files import remove, sweep, write_json, write_text
from pipelines.stop import Stop
from pipelines.turns import Turns

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

    def __init__(
        self, directory: Path, key: Mapping[str, Any], stop: Stop | None = None, turns: Turns | None = None
    ) -> None:
        self.directory = directory
        # Through JSON, so that a key compares equal to the one read back (tuples are lists there).
        self._key: Any = json.loads(json.dumps(key))
        self._stop = stop or Stop()
        self._turns = turns or Turns()

    def run(
        self,
        items: Sequence[Item],
        size: int,
        work: Callable[[Sequence[Item]], Iterable[Row]],
        bar: Progress | None = None,
    ) -> None:
        """Calls `work` on each chunk of `size` items that has no file yet and keeps the rows it gives (JSON values).

        `work` raises where a call failed: a failure is no result and stays owed. `bar` is told how many items are
        done, those of earlier attempts too. Raises `Interrupted` between two chunks once a stop is requested. With
        turns for several chunks at once, `work` is called in threads, which take turns.
        """
        if size < 1:
            raise ValueError(f"a chunk holds at least one item, not {size}")
        wanted = {"key": self._key, "items": len(items), "size": size}
        if self._header() != wanted:
            remove(self.directory)
            self.directory.mkdir(parents=True)
            write_json(self.directory / KEY_FILE, wanted)
        sweep(self.directory)
        kept = 0
        for count, before in self._kept(items, size, work):
            kept += count
            if bar is not None:
                (bar.skip if before else bar.advance)(count)
        if kept < len(items):
            raise Interrupted(f"{kept} of {len(items)} rows are kept in {self.directory}")

    def _kept(
        self, items: Sequence[Item], size: int, work: Callable[[Sequence[Item]], Iterable[Row]]
    ) -> Iterator[tuple[int, bool]]:
        """For each chunk once it is kept: its number of items, and whether an earlier attempt has kept it.

        Ends early where a stop is requested.
        """

        def keep(path: Path, chunk: Sequence[Item]) -> None:
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in work(chunk)]
            write_text(path, "".join(lines))

        def keep_in_turn(path: Path, chunk: Sequence[Item]) -> None:
            with self._turns.kept():
                keep(path, chunk)

        chunks = ((self._path(number), start) for number, start in enumerate(range(0, len(items), size)))
        if self._turns.at_once == 1:
            for path, start in chunks:
                chunk = items[start : start + size]
                before = path.exists()
                if not before:
                    if self._stop.requested:
                        return
                    keep(path, chunk)
                yield len(chunk), before
            return
        with ThreadPoolExecutor(self._turns.at_once, "chunk") as threads:
            under_way: dict[Future[None], int] = {}
            for path, start in chunks:
                chunk = items[start : start + size]
                if path.exists():
                    yield len(chunk), True
                    continue
                if len(under_way) == self._turns.at_once:
                    yield from _done(under_way, FIRST_COMPLETED)
                if self._stop.requested:
                    break
                under_way[threads.submit(keep_in_turn, path, chunk)] = len(chunk)
            while under_way:
                yield from _done(under_way, FIRST_COMPLETED)

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


def _done(under_way: dict[Future[None], int], when: str) -> Iterator[tuple[int, bool]]:
    """Takes out what is done, and raises what was raised there."""
    for each in wait(under_way, return_when=when).done:
        count = under_way.pop(each)
        each.result()
        yield count, False


def _chunks(header: Mapping[str, Any]) -> int:
    return -(-int(header["items"]) // int(header["size"]))
