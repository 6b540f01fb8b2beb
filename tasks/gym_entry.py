"""Entries of reasoning-gym as JSON, and back: its scorers ask for the very tuples and numbers that JSON has not."""

from __future__ import annotations

from typing import Any

_TUPLE, _PAIRS = "(tuple)", "(pairs)"


def packed(value: Any) -> Any:
    """JSON's own types. A tuple is marked as one, a mapping with keys that are no texts becomes pairs.

    Of the rest (fractions, in what tells how a problem was made) no scorer reads any: their texts are kept.
    """
    if isinstance(value, tuple):
        return {_TUPLE: [packed(each) for each in value]}
    if isinstance(value, list):
        return [packed(each) for each in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: packed(each) for key, each in value.items()}
        return {_PAIRS: [[packed(key), packed(each)] for key, each in value.items()]}
    return value if value is None or isinstance(value, str | int | float) else str(value)


def unpacked(value: Any) -> Any:
    """What `packed` was given, the rest as texts."""
    if isinstance(value, list):
        return [unpacked(each) for each in value]
    if isinstance(value, dict):
        if value.keys() == {_TUPLE}:
            return tuple(unpacked(each) for each in value[_TUPLE])
        if value.keys() == {_PAIRS}:
            return {unpacked(key): unpacked(each) for key, each in value[_PAIRS]}
        return {key: unpacked(each) for key, each in value.items()}
    return value
