"""Boards to train on, as arrays of tokens, and the batches that are drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.draw import seed64

Tokens = NDArray[np.int64]
Copy = Callable[[Tokens, Tokens, np.random.Generator], tuple[Tokens, Tokens]]
"""Symmetric copies of inputs and labels, (B, S) each, one of each row."""


@dataclass(frozen=True, slots=True)
class Boards:
    """`inputs` and `labels`: (n, S); a label of −100 is not judged. `copy` draws a symmetric copy of each board."""

    inputs: Tokens
    labels: Tokens
    copy: Copy | None = None

    def __post_init__(self) -> None:
        if self.inputs.shape != self.labels.shape:
            raise ValueError(f"inputs of shape {self.inputs.shape}, labels of shape {self.labels.shape}")
        if not len(self.inputs):
            raise ValueError("there are no boards to train on")

    def rows_of(self, batch_size: int, processes: int) -> int:
        """Rows in a batch of all processes, equal for each: `batch_size`, or all boards where they are fewer."""
        return min(batch_size, len(self.inputs)) // processes * processes

    def batch(
        self, rollout: int, batch_size: int, seed: int, process: int = 0, processes: int = 1, pool: int | None = None
    ) -> tuple[Tokens, Tokens]:
        """The rows of one process in rollout `rollout`, a function of the arguments alone.

        Those of all processes are together the batch of one. Every epoch has its own order; the rows that fill no
        batch at its end are left out of it. `pool`: the number of copies of a board, drawn from with the board itself.
        """
        rows = self.rows_of(batch_size, processes)
        if rows == 0:
            raise ValueError(f"{len(self.inputs)} boards cannot be split among {processes} processes")
        epoch, number = divmod(rollout, len(self.inputs) // rows)
        order = np.random.default_rng(seed64("epoch", seed, epoch)).permutation(len(self.inputs))
        share = rows // processes
        chosen = order[number * rows : (number + 1) * rows]
        inputs, labels = self.inputs[chosen], self.labels[chosen]
        if self.copy is not None:
            draw = np.random.default_rng(seed64("copies", seed, rollout))
            if pool is None:
                inputs, labels = self.copy(inputs, labels, draw)
            for row, number in enumerate(draw.integers(0, pool + 1, rows) if pool else ()):
                if number:
                    its = np.random.default_rng(seed64("copy", seed, int(chosen[row]), int(number)))
                    one = slice(row, row + 1)
                    inputs[one], labels[one] = self.copy(inputs[one], labels[one], its)
        part = slice(process * share, (process + 1) * share)
        return inputs[part], labels[part]
