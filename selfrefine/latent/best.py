"""The weights that were best on the validation data so far."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from engines.json_file import read_object
from selfrefine.latent.model import LatentReasoner

_FILE = "best.json"


class Best:
    """In a folder `best-STEP` of `saves`: the weights of the best look so far, the first of equals.

    Best is the largest share of solved boards, and of looks with the same share that with most right cells: early in a
    training all of them may have solved none. `accuracy`, `cell_accuracy` and `step` are the look's.

    A folder is there whole or not at all, and the one before goes after it. A training that resumes from before its
    best look comes to it again, with the same weights.
    """

    def __init__(self, saves: Path) -> None:
        self._saves = saves
        self.accuracy, self.cell_accuracy, self.step = -1.0, -1.0, 0
        for path in self._folders():
            look = read_object(path / _FILE)
            self._better(look["accuracy"], look["cell_accuracy"], look["step"])

    @property
    def _folder(self) -> Path:
        return self._saves / f"best-{self.step}"

    def _folders(self) -> list[Path]:
        return [path for path in self._saves.glob("best-*") if path.suffix != ".new"]

    def _better(self, accuracy: float, cell_accuracy: float, step: int) -> bool:
        """Takes a look over where it is better than any before."""
        better = (accuracy, cell_accuracy) > (self.accuracy, self.cell_accuracy)
        if better:
            self.accuracy, self.cell_accuracy, self.step = accuracy, cell_accuracy, step
        return better

    def offer(self, model: LatentReasoner, accuracy: float, cell_accuracy: float, step: int, writes: bool) -> None:
        """Keeps the weights where they are better than any before; of several processes one `writes`."""
        if not self._better(accuracy, cell_accuracy, step) or not writes:
            return
        fresh = self._saves / f"best-{step}.new"
        look = {"accuracy": accuracy, "cell_accuracy": cell_accuracy, "step": step}
        shutil.rmtree(fresh, ignore_errors=True)
        model.save_pretrained(fresh)
        (fresh / _FILE).write_text(json.dumps(look), encoding="utf-8")
        fresh.rename(self._folder)
        for path in self._folders():
            if path != self._folder:
                shutil.rmtree(path)

    def copy_to(self, directory: Path) -> None:
        """The weights as a checkpoint."""
        assert self.step, "a training looks at its last step"
        shutil.copytree(self._folder, directory, ignore=shutil.ignore_patterns(_FILE), dirs_exist_ok=True)
