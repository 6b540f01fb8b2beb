"""Draws that depend on what is drawn, never on order: the same seed and id give the same number everywhere."""

from __future__ import annotations

import hashlib


def uniform(*parts: object) -> float:
    """A number in [0, 1) that is a function of `parts` (their texts) alone."""
    return seed64(*parts) / 2**64


def seed64(*parts: object) -> int:
    """A seed in [0, 2⁶⁴) that is a function of `parts` (their texts) alone."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
