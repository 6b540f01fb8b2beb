"""Grids as text, and as the tokens of a reasoner: a token for each character that is not white space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isqrt

import numpy as np

from selfrefine.latent.boards import Boards, Copy, Tokens
from selfrefine.latent.config import LatentReasonerConfig
from tasks.problem import Problem


class GridError(ValueError):
    """A text that is no grid of this alphabet and size."""


def encode(text: str, config: LatentReasonerConfig) -> Tokens:
    """(S,): the tokens of a grid. Raises `GridError` for a character without one, and for too many."""
    cells = "".join(text.split())
    tokens = np.fromiter((config.alphabet.find(cell) + 1 for cell in cells), np.int64, len(cells))
    if not tokens.all():
        cell = cells[int((tokens == 0).argmax())]
        raise GridError(f"{cell!r} is no cell; a grid of this model has the characters {config.alphabet!r}")
    if not 0 < len(cells) <= config.seq_len:
        raise GridError(f"a grid of {len(cells)} cells; this model reads 1 to {config.seq_len}")
    return tokens


def read_board(text: str, image: str | None, config: LatentReasonerConfig) -> Tokens:
    """(S,): the tokens of what a reasoner is asked. Raises `GridError` for what it has not learnt to read."""
    if image is not None:
        raise GridError("a recurrent reasoner reads no images")
    tokens = encode(text, config)
    if len(tokens) < config.seq_len:
        raise GridError(f"a grid of {len(tokens)} cells; this model was trained on {config.seq_len}")
    return tokens


def decode(tokens: Sequence[int], question: str, config: LatentReasonerConfig) -> str:
    """The tokens in the layout of the question: its white space, other characters. Padding is written as `?`."""
    cells = iter(tokens)
    return "".join(each if each.isspace() else ("?" + config.alphabet)[next(cells)] for each in question)


def format_of(problems: Sequence[Problem]) -> tuple[str, int]:
    """(alphabet, cells): all characters of the grids but white space, in order, and the size of the largest.

    Of problems with an answer of their size, where there are some.
    """
    pairs = [["".join(text.split()) for text in (problem.question, problem.answer)] for problem in problems]
    grids = [grid for pair in [each for each in pairs if len(set(map(len, each))) == 1] or pairs for grid in pair]
    return "".join(sorted(set("".join(grids)))), max(map(len, grids), default=0)


def boards_of(
    problems: Sequence[Problem], config: LatentReasonerConfig, symmetry: str = "none"
) -> tuple[Boards, Counter[str]]:
    """The boards of problems whose question and answer are grids, and how many were left out for which reason.

    `symmetry`: of what the copies are, `sudoku` or `maze`.

    Raises `GridError` where no board is left, or boards differ in size.
    """
    rows, left_out, first = [], Counter[str](), ""
    for problem in problems:
        try:
            question, answer = encode(problem.question, config), encode(problem.answer, config)
        except GridError as error:
            left_out["no_grid"] += 1
            first = first or f"; {problem.id}: {error}"
            continue
        if len(question) != len(answer):
            left_out["answer_of_another_size"] += 1
            first = first or f"; {problem.id}: a grid of {len(question)} cells, an answer of {len(answer)}"
            continue
        rows.append((question, answer))
    if not rows:
        raise GridError(f"none of {len(problems)} problems is a grid with an answer of its size{first}")
    sizes = sorted({len(question) for question, _ in rows})
    if len(sizes) > 1:
        raise GridError(f"boards of {', '.join(map(str, sizes))} cells; a reasoner is trained on boards of one size")
    inputs, labels = (np.stack(part) for part in zip(*rows, strict=True))
    return Boards(inputs, labels, _copies(symmetry, config, sizes[0])), left_out


def _copies(symmetry: str, config: LatentReasonerConfig, cells: int) -> Copy | None:
    """Draws copies of token boards, by way of the cells that `tasks.puzzles.symmetry` knows."""
    if symmetry == "none":
        return None
    from tasks.puzzles import symmetry as symmetries

    side = isqrt(cells)
    if side * side != cells:
        raise GridError(f"boards of {cells} cells are no squares; copies are made of squares: symmetry: none")
    if symmetry == "maze":
        if missing := [sign for sign in "SG" if sign not in config.alphabet]:
            raise GridError(f"symmetry: maze: alphabet {config.alphabet!r} has no {' and no '.join(missing)}")
        return lambda inputs, labels, draw: symmetries.turned_copies(inputs, labels, side, draw)
    blank = [cell for cell in config.alphabet if not "1" <= cell <= "9"]
    digits = {cell for cell in config.alphabet if "1" <= cell <= "9"}
    if len(blank) != 1 or digits != set(map(str, range(1, side + 1))):
        raise GridError(
            f"alphabet {config.alphabet!r} is not that of a sudoku of side {side}: its digits and one sign for a blank"
        )
    values = np.array([0, *(0 if cell in blank else int(cell) for cell in config.alphabet)])
    tokens = np.array([config.alphabet.index(cell) + 1 for cell in (*blank, *sorted(digits))])

    def copy(inputs: Tokens, labels: Tokens, draw: np.random.Generator) -> tuple[Tokens, Tokens]:
        copied = symmetries.copies(values[inputs], values[labels], side, draw)
        return tokens[copied[0]], tokens[copied[1]]

    return copy
