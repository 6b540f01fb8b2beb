"""The name that somebody meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, among: Iterable[str], otherwise: str = "", quote: str = "`") -> str:
    """`; did you mean …?` with the nearest of the names, to be put behind a message; `otherwise` where none is near."""
    close = difflib.get_close_matches(word, list(among), n=1)
    return f"; did you mean {quote}{close[0]}{quote}?" if close else otherwise
