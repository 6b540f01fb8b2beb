"""A run that is kept at a URL: worked on in a local copy, which goes up as it grows.

Every file goes up whole, a stage's manifest last, and comes down under a temporary name: a stage that has a manifest is
whole at either end, whoever died. What is finished goes up at once, the files of a stage in work every `INTERVAL`
seconds, so that another machine goes on where this one died.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.errors import RunError
from pipelines.files import PARTIAL, sha256_of, whole, write_json
from pipelines.heartbeat import LIVE_FILE
from pipelines.lock import LOCK_FILE
from pipelines.manifest import MANIFEST_FILE, Manifest
from tasks.remote import cache_folder

INTERVAL = 30.0
"""Seconds between two looks for new files, and between two signs of life."""
SILENCE = 3
"""Intervals without a sign of life after which a driver counts as dead."""
URL_FILE = "mirror.json"
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "memory"})
"""Stores in which a file that is being put is not there until it is whole."""
_RENAMES = frozenset({"file", "local", "sftp", "ssh", "hdfs", "smb"})
"""Those that rename instead."""


class Mirror:
    """One run's directory `local` and its place at `url`. Raises `RunError` for what goes wrong with the store."""

    def __init__(self, url: str, local: Path, interval: float = INTERVAL) -> None:
        self.url, self.local, self.interval = url, local, interval
        with _told(url):
            import fsspec

            self._store, self._root = fsspec.core.url_to_fs(url)
        protocols = {self._store.protocol} if isinstance(self._store.protocol, str) else set(self._store.protocol)
        if not protocols & (_WHOLE | _RENAMES):
            there = ", ".join(sorted(_WHOLE | _RENAMES))
            raise RunError(
                f"{url}: a run cannot be kept there, since a manifest could be read half written; it can at {there}"
            )
        self._renames = not protocols & _WHOLE
        self._sent: dict[str, tuple[int, int]] = {}
        self._sending = threading.Lock()

    def pull(self) -> None:
        """Fetches what is newer at the URL: finished stages with their files, checked, and those of stages in work."""
        with _told(self.url):
            there = self._there()
        stages = [name.removesuffix(MANIFEST_FILE) for name in there if _last(name) == MANIFEST_FILE]
        ours = [place for place in stages if not self._pull_stage(place)]
        for name, size in there.items():
            path = self.local / name
            other = _last(name) in (LOCK_FILE, MANIFEST_FILE) or any(name.startswith(place) for place in ours)
            if not other and (not path.is_file() or path.stat().st_size < size):
                self._fetch(name)

    def outline(self, target: Path, names: Collection[str]) -> None:
        """Fetches into `target` the files of these names alone, in whatever folder of the run they are."""
        with _told(self.url):
            for name in self._there():
                if _last(name) in names:
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    self._store.get_file(self._at(name), str(target / name))

    def push(self, directory: Path) -> None:
        """Puts up a stage that was finished: its files, and last of all its manifest."""
        manifest = Manifest.read(directory)
        if manifest is None:
            return
        place = directory.relative_to(self.local).as_posix()
        with self._sending, _told(self.url):
            up = self._manifest(place)
            if up is not None and up == (directory / MANIFEST_FILE).read_bytes():
                return
            old = {} if up is None else Manifest.model_validate_json(up).files
            self._remove(f"{place}/{MANIFEST_FILE}")
            for name, file in manifest.files.items():
                if name not in old or old[name].sha256 != file.sha256:
                    self._put(f"{place}/{name}")
            here = [path.relative_to(self.local).as_posix() for path in _whole_files(directory)]
            for name in here:  # what a stage that runs again would go on with: shards, the number of its attempt
                if name.removeprefix(f"{place}/") not in manifest.files:
                    self._put(name)
            for name in set(self._there(place)) - set(here):
                self._remove(name)
            self._put(f"{place}/{MANIFEST_FILE}")

    def push_all(self) -> None:
        """Puts up all that is finished, then whatever else is new."""
        for path in sorted(self.local.rglob(MANIFEST_FILE)):
            self.push(path.parent)
        self.push_loose()

    def push_loose(self) -> None:
        """Puts up the new whole files of the run itself and of stages in work."""
        with self._sending, _told(self.url):
            for path in _whole_files(self.local):
                name = path.relative_to(self.local)
                if any((self.local / parent / MANIFEST_FILE).is_file() for parent in list(name.parents)[:-1]):
                    continue
                with suppress(FileNotFoundError):  # replaced, or swept, meanwhile
                    self._put(name.as_posix())

    def begin(self, directory: Path) -> None:
        """Says that a stage is due again, before its old outputs go."""
        with self._sending, _told(self.url):
            self._remove(f"{directory.relative_to(self.local).as_posix()}/{MANIFEST_FILE}")

    @contextmanager
    def held(self, say: Callable[[str], None]) -> Iterator[None]:
        """Holds the run's lock at the URL and keeps what is new going up. Raises `RunError` while another does.

        Stores know no locks: a driver writes a sign of life, and one that is not renewed for `SILENCE` intervals is of
        a dead driver. Two that begin within the same second are told apart by a second look.
        """
        mine = {"process": os.getpid(), "host": socket.gethostname(), "nonce": os.urandom(8).hex()}
        with _told(self.url):
            self._wait_for_silence(say)
            self._sign(mine)
            if self._signed()["nonce"] != mine["nonce"]:
                raise RunError(f"{self.url}: another driver began at the same time; start it once")
        ended = threading.Event()
        failed: list[str] = []
        follower = threading.Thread(target=self._follow, args=(mine, ended, failed), daemon=True)
        follower.start()
        try:
            yield
        except BaseException:
            ended.set()
            follower.join()
            try:
                self._let_go()
            except RunError as error:  # why the run ended matters more
                say(f"warning: {error}; what is new is kept in {self.local}, and goes up when the run goes on")
            raise
        ended.set()
        follower.join()
        if failed:
            say(f"warning: {failed[-1]}; trying once more")
        self._let_go()

    def _let_go(self) -> None:
        self.push_all()
        with _told(self.url):
            self._remove(LOCK_FILE)

    def _follow(self, mine: dict[str, Any], ended: threading.Event, failed: list[str]) -> None:
        while not ended.wait(self.interval):
            try:
                with self._sending, _told(self.url):
                    self._sign(mine)
                self.push_loose()
                failed.clear()
            except RunError as error:  # the work goes on; what is owed goes up later
                failed.append(str(error))

    def _wait_for_silence(self, say: Callable[[str], None]) -> None:
        first = self._signed()
        if not first:
            return
        who = f"process {first['process']} on {first['host']}"
        if not (first["host"] == socket.gethostname() and not _alive(int(first["process"]))):
            say(f"{self.url}: {who} was at work; waiting {SILENCE * self.interval:.0f} s for a sign of life")
            deadline = time.monotonic() + SILENCE * self.interval
            while time.monotonic() < deadline:
                time.sleep(self.interval / 4)
                now = self._signed()
                if now and now != first:
                    raise RunError(f"{self.url} is in use by {who}: wait for it, stop it, or use another --runs")
        say(f"{self.url}: {who} has died; going on with what it left")

    def _sign(self, mine: dict[str, Any]) -> None:
        self._store.pipe_file(self._at(LOCK_FILE), json.dumps({**mine, "time": time.time()}).encode())

    def _signed(self) -> dict[str, Any]:
        self._store.invalidate_cache()
        try:
            found: dict[str, Any] = json.loads(self._store.cat_file(self._at(LOCK_FILE)))
        except FileNotFoundError:
            return {}
        return found

    def _pull_stage(self, place: str) -> bool:
        """Fetches the finished stage in the folder `place/`. False where ours is newer, and stays."""
        directory, name = self.local / place, f"{place}{MANIFEST_FILE}"
        with _told(self.url):
            content = self._store.cat_file(self._at(name))
        try:
            up = Manifest.model_validate_json(content)
        except ValueError:
            raise RunError(f"{self.url}/{name}: no manifest of this version") from None
        here = Manifest.read(directory) if directory.is_dir() else None
        if here is not None and here.started > up.started:
            return False
        if here is None or here != up or here.damage(directory) is not None:
            (directory / MANIFEST_FILE).unlink(missing_ok=True)
            for each, file in up.files.items():
                path = directory / each
                if not path.is_file() or path.stat().st_size != file.size or sha256_of(path) != file.sha256:
                    self._fetch(f"{place}{each}", file.sha256)
            with whole(directory / MANIFEST_FILE) as path:
                path.write_bytes(content)
        return True

    def _fetch(self, name: str, sha256: str | None = None) -> None:
        final = self.local / name
        final.parent.mkdir(parents=True, exist_ok=True)
        with whole(final) as path, _told(self.url):
            self._store.get_file(self._at(name), str(path))
            if sha256 is not None and sha256_of(path) != sha256:
                raise RunError(f"{self.url}/{name}: is not the file that its manifest names; remove that stage there")

    def _put(self, name: str) -> None:
        path = self.local / name
        status = path.stat()
        state = status.st_size, status.st_mtime_ns
        if self._sent.get(name) == state:
            return
        target = self._at(name)
        if self._renames:
            making = f"{target.rpartition('/')[0]}/{PARTIAL}{_last(name)}"
            self._store.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._store.put_file(str(path), making)
            self._store.mv(making, target)
        else:
            self._store.put_file(str(path), target)
        self._sent[name] = state

    def _remove(self, name: str) -> None:
        self._sent.pop(name, None)
        with suppress(FileNotFoundError):
            self._store.rm_file(self._at(name))

    def _manifest(self, place: str) -> bytes | None:
        try:
            found: bytes = self._store.cat_file(self._at(f"{place}/{MANIFEST_FILE}"))
        except FileNotFoundError:
            return None
        return found

    def _there(self, place: str = "") -> dict[str, int]:
        """Name -> bytes of each whole file at the URL, or in a folder of it."""
        self._store.invalidate_cache()
        found = self._store.find(self._at(place) if place else self._root, detail=True)
        start = len(self._root.rstrip("/")) + 1
        names = {path[start:]: int(info["size"]) for path, info in found.items()}
        return {name: size for name, size in names.items() if PARTIAL not in name}

    def _at(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"


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


def fetch_run(root: Path) -> None:
    """Brings the working copy of a run up to date; nothing where runs are kept here alone."""
    mirror = mirror_of(root)
    if mirror is not None:
        mirror.pull()


def publish_run(root: Path) -> None:
    """Puts up what a command added to a run that is not in work; nothing where runs are kept here alone."""
    mirror = mirror_of(root)
    if mirror is not None:
        mirror.push_all()


def names_at(runs: Path) -> list[str]:
    """The runs that are kept at the URL of a working copy; none where runs are kept here alone."""
    url = _url_of(runs)
    if url is None:
        return []
    with _told(url):
        import fsspec

        store, root = fsspec.core.url_to_fs(url)
        store.invalidate_cache()
        found = store.ls(root, detail=True) if store.isdir(root) else []
        return sorted(_last(each["name"]) for each in found if each["type"] == "directory")


def _url_of(runs: Path) -> str | None:
    """The URL that a folder of runs is a working copy of."""
    path = runs / URL_FILE
    return str(json.loads(path.read_text(encoding="utf-8"))["url"]) if path.is_file() else None


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        yield
    except (RunError, FileNotFoundError):
        raise
    except ImportError as error:  # fsspec names the package that the protocol needs
        raise RunError(f"{url}: {error}") from None
    except Exception as error:  # each store's package has errors of its own
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise RunError(f"{url}: does not answer as it should ({said})") from error


def _whole_files(directory: Path) -> list[Path]:
    """Files that are in place, but for locks, heartbeats and manifests."""
    others = (LOCK_FILE, LIVE_FILE, MANIFEST_FILE)
    found = (path for path in sorted(directory.rglob("*")) if path.name not in others)
    return [path for path in found if path.is_file() and not any(part.startswith(PARTIAL) for part in path.parts)]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
