"""What may go wrong in a run, apart from bugs. Every message is one line: what is wrong, where, and the way out."""

from __future__ import annotations


class RecipeError(ValueError):
    """A recipe, or an override of it, that cannot be run as written."""


class RunError(RuntimeError):
    """A run directory that is not in a state to go on with."""


class Interrupted(Exception):
    """Someone asked the run to stop, and the stage has reached a point that it can resume from."""
