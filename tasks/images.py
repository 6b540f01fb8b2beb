"""A folder of images that nobody has asked anything about."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from tasks.faults import Faults
from tasks.problem import Picture, Rows, TaskError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000


def load(split: str, folder: str) -> Rows:
    """The images under `folder`, by path; they are not opened here.

    A picture's id is its path inside the folder. `split` names a subfolder of that name where there is one.
    """
    root = _root(split, folder)
    pictures = [Picture(path.relative_to(root).as_posix(), str(path.resolve())) for path in sorted(_files(root))]
    if not pictures:
        raise _nothing(root)
    return Rows((), pictures)


def check(split: str, folder: str) -> str | None:
    """Raises `TaskError` where there is no folder, or no image file in it; images are not opened."""
    root = _root(split, folder)
    if next(_files(root), None) is None:
        raise _nothing(root)
    return None


def count(split: str, folder: str) -> int:
    """How many image files there are."""
    return sum(1 for _ in _files(_root(split, folder)))


def _root(split: str, folder: str) -> Path:
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise TaskError(f"{folder}: no such folder of images")
    return root / split if (root / split).is_dir() else root


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _nothing(root: Path) -> TaskError:
    return TaskError(f"{root}: no image files in it; images end in {', '.join(sorted(SUFFIXES))}")


def without_bad_images(rows: Rows, what: str) -> Rows:
    """`rows` without those whose image cannot be used, counted by reason: `missing_image`, `empty_file`, `huge`,
    `unreadable`. The first images of each are named, with their first problem.

    Counted are the problems of such an image, or 1 where it has none. Raises `TaskError` where nothing is left of
    `what`.
    """
    # Decoding releases the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(lambda picture: problem_with(Path(picture.path)), rows.pictures)
        bad = {picture.path: reason for picture, reason in zip(rows.pictures, found, strict=True) if reason}
    if not bad:
        return rows
    asked: dict[str, list[str]] = defaultdict(list)
    for problem in rows.problems:
        if problem.image in bad:
            asked[problem.image].append(problem.id)
    faults = Faults("file")
    for picture in rows.pictures:
        if picture.path in bad:
            ids = asked[picture.path]
            place = f"{picture.id} of problem {ids[0]}" if ids else picture.id
            faults.add(bad[picture.path], place, len(ids) or 1)
    dropped = tuple(sorted((*rows.dropped, *faults.dropped)))
    problems = [problem for problem in rows.problems if problem.image not in bad]
    pictures = [picture for picture in rows.pictures if picture.path not in bad]
    if not problems and not pictures:
        raise TaskError(f"{what}: nothing to work on ({', '.join(f'{n} {r}' for r, n in dropped)})")
    return Rows(problems, pictures, dropped, rows.lost + sum(map(len, asked.values())))


def problem_with(path: Path) -> str | None:
    """Why an image file cannot be used, or None. The pixels are decoded: a truncated file shows only then."""
    try:
        if path.stat().st_size == 0:
            return "empty_file"
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                return "huge"
            image.load()
    except FileNotFoundError:
        return "missing_image"
    except Image.DecompressionBombError:
        return "huge"
    except (OSError, ValueError, SyntaxError):  # Pillow's PNG reader raises SyntaxError for broken chunks
        return "unreadable"
    return None
