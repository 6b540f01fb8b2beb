"""Draws that depend on what is drawn, never on order: the same seed and id give the same number everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import accumulate


def uniform(*parts: object) -> float:
    """A number in [0, 1) that is a function of `parts` (their texts) alone."""
    return seed64(*parts) / 2**64


def seed64(*parts: object) -> int:
    """A seed in [0, 2⁶⁴) that is a function of `parts` (their texts) alone."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def split_at(place: float, shares: Mapping[str, float]) -> str:
    """The split that a number in [0, 1) belongs to, where each has a share of it, in their order."""
    return next(split for split, end in zip(shares, accumulate(shares.values()), strict=True) if place < end)
