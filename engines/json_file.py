"""The small JSON files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engines.base import EngineError


def read_object(file: Path) -> dict[str, Any]:
    """The object in a file. Raises `EngineError` where it holds none, as after a copy that was cut short."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # also of bytes that are no UTF-8
        raise EngineError(f"{file}: is not valid JSON ({error}); copy the checkpoint again or mend the file") from None
    if not isinstance(values, dict):
        raise EngineError(f"{file}: holds no JSON object; copy the checkpoint again or mend the file")
    return values
