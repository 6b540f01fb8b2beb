"""The safetensors files of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from engines.base import EngineError


def check_whole(file: Path) -> None:
    """Raises `EngineError` for a file that is cut short, or none of the kind. Reads its header alone, without torch."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            pass
    except SafetensorError as error:
        raise EngineError(
            f"{file}: is no whole safetensors file ({error}); copy or save the checkpoint again"
        ) from None
