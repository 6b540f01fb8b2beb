"""A folder of images that nobody has asked anything about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tasks.problem import Picture, Rows, TaskError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000


def load(split: str, folder: str) -> Rows:
    """The readable images under `folder`, by path. Others are counted: `empty`, `huge`, `unreadable`.

    A picture's id is its path inside the folder. `split` names a subfolder of that name where there is one.
    """
    root = _root(split, folder)
    files = sorted(_files(root))
    dropped: Counter[str] = Counter()
    pictures = []
    for path in files:
        if reason := problem_with(path):
            dropped[reason] += 1
        else:
            pictures.append(Picture(path.relative_to(root).as_posix(), str(path.resolve())))
    if not pictures:
        raise _nothing(root, ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items())))
    return Rows((), pictures, tuple(sorted(dropped.items())))


def check(split: str, folder: str) -> str | None:
    """Raises `TaskError` where there is no folder, or no image file in it; images are not opened."""
    root = _root(split, folder)
    if next(_files(root), None) is None:
        raise _nothing(root, "")
    return None


def _root(split: str, folder: str) -> Path:
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise TaskError(f"{folder}: no such folder of images")
    return root / split if (root / split).is_dir() else root


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _nothing(root: Path, why: str) -> TaskError:
    return TaskError(
        f"{root}: nothing to work on ({why or 'no image files in it'}); images end in {', '.join(sorted(SUFFIXES))}"
    )


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
