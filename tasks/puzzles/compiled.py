"""Functions compiled by numba, which takes a second to import: modules that hold some are imported when needed.

A function of this kind calls only those of its own module: the kept code is renewed when its own file changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """The function as machine code, kept on disk where there is a place for it."""
    try:
        fast: Function = numba.njit(cache=True)(function)
    except RuntimeError:  # neither the package nor the home directory can be written
        fast = numba.njit(function)
    return fast
