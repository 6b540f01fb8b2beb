"""Grids as text, and as the tokens of a reasoner: a token for each character that is not white space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selfrefine.latent.boards import Tokens
from selfrefine.latent.config import LatentReasonerConfig


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
        raise GridError(f"a grid of {len(cells)} cells; this model was made for 1 to {config.seq_len}")
    return tokens


def decode(tokens: Sequence[int], question: str, config: LatentReasonerConfig) -> str:
    """The tokens in the layout of the question: its white space, other characters. Padding is written as `?`."""
    cells = iter(tokens)
    return "".join(each if each.isspace() else ("?" + config.alphabet)[next(cells)] for each in question)


def alphabet_of(texts: Sequence[str]) -> str:
    """All characters of `texts` that are not white space, in order."""
    return "".join(sorted({cell for text in texts for cell in text if not cell.isspace()}))
