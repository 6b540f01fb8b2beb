"""Something else in the place of an attribute, for a while: how TRL is told what it has no argument for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def instead(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, `holder` (an object or a module) has `value` where it looks up `name`."""
    before = getattr(holder, name)
    setattr(holder, name, value)
    try:
        yield
    finally:
        setattr(holder, name, before)
