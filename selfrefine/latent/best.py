"""The weights that solved most of the validation data so far."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from engines.json_file import read_object
from selfrefine.latent.model import LatentReasoner

_FILE = "best.json"


class Best:
    """In a folder `best-STEP` of `saves`: the weights of the best look so far, the first of equals.

    A folder is there whole or not at all, and the one before goes after it. A training that resumes from before its
    best look comes to it again, with the same weights.
    """

    def __init__(self, saves: Path) -> None:
        self._saves = saves
        self.accuracy = -1.0
        self._folder: Path | None = None
        for path in self._folders():
            accuracy = read_object(path / _FILE)["accuracy"]
            if accuracy > self.accuracy:
                self.accuracy, self._folder = accuracy, path

    def _folders(self) -> list[Path]:
        return [path for path in self._saves.glob("best-*") if path.suffix != ".new"]

    def offer(self, model: LatentReasoner, accuracy: float, step: int, writes: bool) -> None:
        """Keeps the weights where they are better than any before; of several processes one `writes`."""
        if accuracy <= self.accuracy:
            return
        self.accuracy, self._folder = accuracy, self._saves / f"best-{step}"
        if not writes:
            return
        fresh = self._saves / f"best-{step}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        model.save_pretrained(fresh)
        (fresh / _FILE).write_text(json.dumps({"accuracy": accuracy}), encoding="utf-8")
        fresh.rename(self._folder)
        for path in self._folders():
            if path != self._folder:
                shutil.rmtree(path)

    def copy_to(self, directory: Path) -> None:
        """The weights as a checkpoint."""
        assert self._folder is not None, "a training looks at its last step"
        shutil.copytree(self._folder, directory, ignore=shutil.ignore_patterns(_FILE), dirs_exist_ok=True)
