"""Images that come as bytes, kept as files named by what is in them: the same image is one file, whoever brings it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path


def kept(data: bytes) -> tuple[Path, str]:
    """(its file in the datasets cache, its SHA-256)."""
    import datasets

    digest = sha256(data).hexdigest()
    path = Path(datasets.config.HF_DATASETS_CACHE) / "trivium-images" / digest
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file of that name is whole, whenever this was killed.
        partial = path.with_suffix(".part")
        partial.write_bytes(data)
        partial.replace(path)
    return path, digest
