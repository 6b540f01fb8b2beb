"""The pictures of the samples: small, each once, and no more of them than a page can carry."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipelines.report.format import thumbnail

SIDE = 256
"""Pixels of the longer side of a sample's picture."""
LEFT_OUT = "left out"
UNREADABLE = "unreadable"


class Pictures:
    """Pictures as data URIs, up to `limit` bytes. `left_out` are pictures, `unreadable` files."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.uris: list[str] = []
        self.left_out = 0
        self.unreadable = 0
        self._used = 0
        self._of_path: dict[str, int | str] = {}
        self._of_content: dict[str, int | str] = {}

    def add(self, path: str) -> int | str:
        """The picture's place in `uris`, or why it is not there: `LEFT_OUT`, `UNREADABLE`."""
        if path not in self._of_path:
            self._of_path[path] = self._add(Path(path))
        return self._of_path[path]

    def _add(self, path: Path) -> int | str:
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            self.unreadable += 1
            return UNREADABLE
        if content not in self._of_content:
            self._of_content[content] = self._make(path)
        return self._of_content[content]

    def _make(self, path: Path) -> int | str:
        # Once full, it stays full: what is shown are the first pictures, not the smallest.
        if self._used >= self.limit:
            self.left_out += 1
            return LEFT_OUT
        uri = thumbnail(str(path), SIDE)
        if uri is None:
            self.unreadable += 1
            return UNREADABLE
        self._used += len(uri)
        self.uris.append(uri)
        return len(self.uris) - 1
