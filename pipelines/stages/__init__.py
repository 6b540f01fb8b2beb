"""The stages: one module each, thin, named like the `kind` it registers. Importing them imports no torch."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from pipelines.stage import StageSettings


@cache
def stage_classes() -> dict[str, type[StageSettings]]:
    """Kind -> settings class, for every module of this package."""
    found = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, StageSettings) and value.__module__ == module.__name__:
                found[value.model_fields["kind"].default] = value
    return found
