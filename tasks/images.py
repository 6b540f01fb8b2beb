"""A folder of images that nobody has asked anything about."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from PIL import Image

from tasks.problem import Picture, Rows, TaskError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000


def load(split: str, folder: str) -> Rows:
    """The readable images under `folder`, by path. Others are counted: `empty`, `huge`, `unreadable`.

    A picture's id is its path inside the folder. `split` names a subfolder of that name where there is one.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise TaskError(f"{folder}: no such folder of images")
    if (root / split).is_dir():
        root = root / split
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    dropped: Counter[str] = Counter()
    pictures = []
    for path in files:
        if reason := problem_with(path):
            dropped[reason] += 1
        else:
            pictures.append(Picture(path.relative_to(root).as_posix(), str(path.resolve())))
    if not pictures:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())) or "no image files in it"
        raise TaskError(f"{root}: nothing to work on ({why}); images end in {', '.join(sorted(SUFFIXES))}")
    return Rows((), pictures, tuple(sorted(dropped.items())))


def problem_with(path: Path) -> str | None:
    """Why an image file cannot be used, or None. The pixels are decoded: a truncated file shows only then."""
    if path.stat().st_size == 0:
        return "empty"
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                return "huge"
            image.load()
    except Image.DecompressionBombError:
        return "huge"
    except (OSError, ValueError, SyntaxError):  # Pillow's PNG reader raises SyntaxError for broken chunks
        return "unreadable"
    return None
