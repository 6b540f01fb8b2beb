"""Rules of a kind of board, by which a reasoner may tell that it is done. They know no answer."""

from __future__ import annotations

from math import isqrt

import torch
from torch import Tensor

from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.grids import GridError
from selfrefine.latent.solve import Rule
from tasks.puzzles.grid import SIDES, units


def any_answer(inputs: Tensor, answers: Tensor) -> Tensor:
    """No rule: an answer that repeats is done, whatever it says."""
    return torch.ones(len(answers), dtype=torch.bool, device=answers.device)


def sudoku_rule(config: LatentReasonerConfig) -> Rule:
    """Whether a board keeps its clues and has every digit once in each row, column and box.

    Raises `GridError`, here or when called, for boards that are no sudoku.
    """
    side = isqrt(config.seq_len)
    if side not in SIDES or side * side != config.seq_len:
        raise GridError(f"boards of {config.seq_len} cells are no sudoku; its sides are {', '.join(map(str, SIDES))}")
    digits = [str(digit) for digit in range(1, side + 1)]
    if missing := [digit for digit in digits if digit not in config.alphabet]:
        raise GridError(f"alphabet {config.alphabet!r}: a sudoku of side {side} has {', '.join(missing)} too")
    # Token → digit, 0 for what is none.
    value = torch.tensor([0, *(digits.index(cell) + 1 if cell in digits else 0 for cell in config.alphabet)])
    of_cell = torch.tensor(units(side))

    def keeps(inputs: Tensor, answers: Tensor) -> Tensor:
        if inputs.shape[1] != side * side:
            raise GridError(f"a board of {inputs.shape[1]} cells; this reasoner's sudokus have {side * side}")
        given, said = (value.to(each.device)[each] for each in (inputs, answers))
        clues = ((given == 0) | (given == said)).all(1)
        places = of_cell.to(said.device)[None] * (side + 1) + said[..., None]  # (B, S, 3)
        seen = torch.zeros(len(said), 3 * side * (side + 1), dtype=torch.bool, device=said.device)
        seen.scatter_(1, places.flatten(1), True)
        return clues & seen.view(len(said), 3 * side, side + 1)[..., 1:].all(-1).all(-1)

    return keeps
