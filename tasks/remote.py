"""Data at a URL that fsspec knows (s3://, gs://, https://, memory://, …): fetched once, then read like local data."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engines.base import first_line
from tasks.problem import TaskError

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://")
_CHANGES = ("size", "ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created", "updated")
"""What stores say of a file that is another one when its content is."""


def is_url(value: object) -> bool:
    """Whether an option's value is a URL and no path or name."""
    return isinstance(value, str) and _URL.match(value) is not None


def cache_folder(name: str) -> Path:
    """Where local copies are kept: `trivium/NAME` under `$XDG_CACHE_HOME` (`~/.cache`). It need not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "trivium" / name


def identity(url: str) -> str:
    """Of what is at the URL now, by names, sizes and what the store says of changes; contents are not read.

    Raises:
        TaskError: the protocol is unknown or lacks a package, the store does not answer, or nothing is there.
    """
    digest = hashlib.sha256()
    for name, info in sorted(_listed(url).items()):
        digest.update(f"{name}\0{[str(info[key]) for key in _CHANGES if key in info]}\0".encode())
    return digest.hexdigest()


def fetched(url: str) -> Path:
    """A local copy of the file or folder at the URL, as it is now. Raises `TaskError` as `identity` does.

    Copies stay in `cache_folder("data")`. One that is there is not fetched again.
    """
    name = url.rstrip("/").rpartition("/")[2]
    cache = cache_folder("data")
    folder = cache / hashlib.sha256(f"{url}\0{identity(url)}".encode()).hexdigest()[:16]
    if not folder.exists():
        # Under a name of this process's own: two that fetch at once do not disturb each other.
        making = cache / f".partial-{os.getpid()}-{folder.name}"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        with _told(url) as (store, path):
            store.get(path, str(making / name), recursive=store.isdir(path))
        try:
            making.rename(folder)
        except OSError:
            if not folder.exists():
                raise
            shutil.rmtree(making)
    return folder / name


def here(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A task's options with local copies in place of URLs, and which URL each copy is of. Raises `TaskError`."""
    copies = {key: str(fetched(value)) for key, value in options.items() if is_url(value)}
    return {**options, **copies}, {copy: options[key] for key, copy in copies.items()}


def _listed(url: str) -> dict[str, Mapping[str, Any]]:
    with _told(url) as (store, path):
        found = store.find(path, detail=True) if store.isdir(path) else {path: store.info(path)}
    if not found:
        raise TaskError(f"{url}: nothing is there")
    return found


@contextmanager
def _told(url: str) -> Iterator[tuple[Any, str]]:
    """The file system and the path in it; what goes wrong with them is one line."""
    import fsspec

    try:
        yield fsspec.core.url_to_fs(url)
    except FileNotFoundError:
        raise TaskError(f"{url}: nothing is there") from None
    except ImportError as error:  # fsspec names the package that the protocol needs
        raise TaskError(f"{url}: {error}") from None
    except PermissionError:
        raise TaskError(f"{url}: access is refused; look at the credentials for this store") from None
    except Exception as error:  # each store's package has errors of its own
        raise TaskError(f"{url}: cannot be read ({first_line(error)[:200]})") from None
