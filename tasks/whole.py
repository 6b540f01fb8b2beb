"""Whole numbers among the options of tasks."""

from __future__ import annotations

from typing import TypeGuard


def is_whole(value: object) -> TypeGuard[int]:
    """Whether an option is a whole number; true and false, which Python counts as such, are none."""
    return isinstance(value, int) and not isinstance(value, bool)
