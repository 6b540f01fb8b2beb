"""A folder at a URL, on whatever store fsspec knows: files go up whole, come down, and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engines.base import first_line
from pipelines.errors import RunError
from pipelines.files import PARTIAL

_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "memory"})
"""Stores in which a file that is being put is not there until it is whole."""
_RENAMES = frozenset({"file", "local", "sftp", "ssh", "hdfs", "smb"})
"""Those that rename instead."""


class Place:
    """Names are relative to the folder. Methods raise `RunError` for what goes wrong with the store."""

    def __init__(self, url: str) -> None:
        """Raises `RunError` also where a reader could meet a file that is half written."""
        self.url = url
        protocols = _protocols_of(url)
        if not protocols & (_WHOLE | _RENAMES):
            there = ", ".join(sorted(_WHOLE | _RENAMES))
            raise RunError(
                f"{url}: a run cannot be kept there, since a manifest could be read half written; it can at {there}"
            )
        self._renames = not protocols & _WHOLE
        with told(url):
            import fsspec

            self._store, self._root = fsspec.core.url_to_fs(url)

    def names(self, folder: str = "") -> dict[str, int]:
        """Name -> bytes of each whole file, or of those in a folder."""
        with told(self.url):
            self._store.invalidate_cache()
            found = self._store.find(self._at(folder) if folder else self._root, detail=True)
        start = len(self._root.rstrip("/")) + 1
        names = {path[start:]: int(info["size"]) for path, info in found.items()}
        return {name: size for name, size in names.items() if PARTIAL not in name}

    def folders(self) -> list[str]:
        """The names of the folders in it; none where it is not there."""
        with told(self.url):
            self._store.invalidate_cache()
            found = self._store.ls(self._root, detail=True) if self._store.isdir(self._root) else []
        return sorted(each["name"].rstrip("/").rpartition("/")[2] for each in found if each["type"] == "directory")

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none."""
        with told(self.url):
            self._store.invalidate_cache()
            try:
                content: bytes = self._store.cat_file(self._at(name))
            except FileNotFoundError:
                return None
        return content

    def write(self, name: str, content: bytes, new: bool = False) -> None:
        """Writes a small file. Raises `FileExistsError` where it has to be `new` and is not."""
        with told(self.url):
            self._make_folder_of(name)
            self._store.pipe_file(self._at(name), content, mode="create" if new else "overwrite")

    def put(self, name: str, path: Path) -> None:
        """Puts a local file up. Raises `FileNotFoundError` where that is gone."""
        target = self._at(name)
        with told(self.url):
            if not self._renames:
                self._store.put_file(str(path), target)
                return
            self._make_folder_of(name)
            folder, _, last = target.rpartition("/")
            self._store.put_file(str(path), f"{folder}/{PARTIAL}{last}")
            self._store.mv(f"{folder}/{PARTIAL}{last}", target)

    def get(self, name: str, path: Path) -> None:
        """Fetches a file to a local path, which it may leave half written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with told(self.url):
            self._store.get_file(self._at(name), str(path))

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with told(self.url), suppress(FileNotFoundError):
            self._store.rm_file(self._at(name))

    def _make_folder_of(self, name: str) -> None:
        if self._renames:
            self._store.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


def _protocols_of(url: str) -> set[str]:
    """All names of the store that a URL is read through: of a chain, its first. No store is connected to.

    Raises `RunError` where fsspec knows none of that name, or its package is missing.
    """
    with told(url):
        import fsspec

        named = fsspec.get_filesystem_class(url.partition("::")[0].partition("://")[0]).protocol
    return {named} if isinstance(named, str) else set(named)


@contextmanager
def told(url: str) -> Iterator[None]:
    """Makes whatever a store raises one line that names the URL."""
    try:
        yield
    except (RunError, FileNotFoundError, FileExistsError):
        raise
    except ImportError as error:  # fsspec names the package that the protocol needs
        raise RunError(f"{url}: {error}") from None
    except Exception as error:  # each store's package has errors of its own
        said = first_line(error)[:200]
        way_out = "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if "credentials" in said and "s3" in url else ""
        raise RunError(f"{url}: does not answer as it should ({said}){way_out}") from error
