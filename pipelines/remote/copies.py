"""Local copies of runs that are kept at URLs, and what commands do with them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.errors import RunError
from pipelines.files import write_json
from pipelines.lock import InUse, locked
from pipelines.remote.mirror import BEATS, INTERVAL, Mirror
from pipelines.remote.place import Place
from tasks.remote import cache_folder

URL_FILE = "mirror.json"


def working_copy(url: str) -> Path:
    """The local folder of the runs that are kept at a URL."""
    place = cache_folder("runs") / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / URL_FILE, {"url": url.rstrip("/")})
    return place


def mirror_of(root: Path) -> Mirror | None:
    """The mirror of a run's directory; None where its runs are kept here alone."""
    url = _url_of(root.parent)
    return None if url is None else Mirror(f"{url}/{root.name}", root)


def fetch_run(root: Path, checkpoints: bool = True) -> None:
    """Brings what is finished of a run down into its working copy; nothing where runs are kept here alone.

    Nothing either where a driver of this machine is at work there: what it has is the newest.
    """
    mirror = mirror_of(root)
    if mirror is not None:
        root.mkdir(parents=True, exist_ok=True)
        with suppress(InUse), locked(root):
            mirror.pull(to_read=True, checkpoints=checkpoints)


@contextmanager
def kept_fresh(root: Path) -> Iterator[None]:
    """Meanwhile brings down again and again what is new of a run at a URL, checkpoints left out."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(INTERVAL / BEATS):
            with suppress(RunError):  # The store does not answer. It may later; how old the view is, it says.
                fetch_run(root, checkpoints=False)

    if mirror_of(root) is None:
        yield
        return
    follower = threading.Thread(target=follow, name="follower", daemon=True)
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def publish_run(root: Path) -> None:
    """Puts up what a command added to a run that is not in work; nothing where runs are kept here alone."""
    mirror = mirror_of(root)
    if mirror is not None:
        mirror.push_all()


def names_at(runs: Path) -> list[str]:
    """The runs that are kept at the URL of a working copy; none where runs are kept here alone."""
    url = _url_of(runs)
    return [] if url is None else Place(url).folders()


def shown(path: Path) -> str:
    """A run's directory, or that of runs, as the user knows it: by its URL where it is a working copy."""
    if (url := _url_of(path)) is not None:
        return url
    url = _url_of(path.parent)
    return str(path) if url is None else f"{url}/{path.name} (worked on in {path})"


def _url_of(runs: Path) -> str | None:
    """The URL that a folder of runs is a working copy of."""
    path = runs / URL_FILE
    return str(json.loads(path.read_text(encoding="utf-8"))["url"]) if path.is_file() else None
