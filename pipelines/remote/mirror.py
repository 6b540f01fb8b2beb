"""A run that is kept at a URL: worked on in a local copy, which goes up as it grows.

Every file goes up whole, a stage's manifest last, and comes down under a temporary name: a stage that has a manifest is
whole at either end, whoever died. What is finished goes up at once, the files of a stage in work every `INTERVAL`
seconds, so that another machine goes on where this one died. What lies beside an `attempt.json` at the URL is of that
attempt: older files go before it comes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.aside import FOLDER as ASIDE
from pipelines.errors import RunError
from pipelines.files import PARTIAL, remove, sha256_of, whole
from pipelines.heartbeat import LIVE_FILE
from pipelines.lock import LOCK_FILE
from pipelines.manifest import ATTEMPT_FILE, MANIFEST_FILE, Manifest
from pipelines.metrics import METRICS_FILE
from pipelines.remote.claim import Claim
from pipelines.remote.place import Place
from pipelines.training import CHECKPOINT, SAVES
from selfrefine.training import COMPLETE

INTERVAL = 30.0
"""Seconds between two looks for new files, and between two signs of life."""
BEATS = 3
"""How often the heartbeat goes up in that time."""


class Mirror:
    """One run's directory `local` and its place at `url`. Raises `RunError` for what goes wrong with the store."""

    def __init__(self, url: str, local: Path, interval: float = INTERVAL) -> None:
        self.url, self.local, self.interval = url, local, interval
        self._place = Place(url)
        self._claim = Claim(self._place, interval)
        self._sent: dict[str, tuple[int, int]] = {}
        self._beginning: set[str] = set()
        self._sending = threading.Lock()

    def pull(self, to_read: bool = False, checkpoints: bool = True) -> None:
        """Fetches what is newer at the URL: finished stages with their files, checked, and those of stages in work.

        Hold the lock of the local copy, and to go on with the run that at the URL too.

        Args:
            to_read: for those who only look, without stages in work.
            checkpoints: whether the weights of finished stages come too. A later pull fetches those that did not.
        """
        there = self._place.names()
        finished = {_stage_of(name) for name in there if _last(name) == MANIFEST_FILE}
        in_work = {_stage_of(name) for name in there if _last(name) == ATTEMPT_FILE} - finished
        of = {stage: [name for name in there if name.startswith(f"{stage}/")] for stage in finished | in_work}
        for stage in sorted(finished):
            if self._pull_finished(stage, checkpoints) and not to_read:
                self._fetch_new({name: there[name] for name in of[stage]})
        if not to_read:
            for stage in sorted(in_work):
                self._pull_in_work(stage, {name: there[name] for name in of[stage]})
        loose = {name: size for name, size in there.items() if not any(name in names for names in of.values())}
        self._fetch_new({name: size for name, size in loose.items() if _last(name) not in (LOCK_FILE, LIVE_FILE)})
        if to_read and LIVE_FILE in there:
            self._fetch(LIVE_FILE)
        elif to_read:
            remove(self.local / LIVE_FILE)

    def outline(self, target: Path, names: Collection[str]) -> None:
        """Fetches into `target` the files of these names alone, in whatever folder of the run they are."""
        for name in self._place.names():
            if _last(name) in names:
                self._place.get(name, target / name)

    def push(self, directory: Path) -> None:
        """Puts up a stage that was finished: its files, and last of all its manifest."""
        manifest = Manifest.read(directory)
        if manifest is None:
            return
        stage = directory.relative_to(self.local).as_posix()
        with self._sending:
            up = self._place.read(f"{stage}/{MANIFEST_FILE}")
            if up is not None and up == (directory / MANIFEST_FILE).read_bytes():
                return
            old = {} if up is None else Manifest.model_validate_json(up).files
            self._remove(f"{stage}/{MANIFEST_FILE}")
            for name, file in manifest.files.items():
                if name not in old or old[name].sha256 != file.sha256:
                    self._put(f"{stage}/{name}")
            here = self._whole_files(directory)
            for name in here:  # what a stage that runs again would go on with: shards, the number of its attempt
                if name.removeprefix(f"{stage}/") not in manifest.files:
                    self._put(name)
            for name in set(self._place.names(stage)) - set(here):
                self._remove(name)
            self._put(f"{stage}/{MANIFEST_FILE}")

    def push_all(self) -> None:
        """Puts up all that is finished, then whatever else is new."""
        for path in sorted(self.local.rglob(MANIFEST_FILE)):
            self.push(path.parent)
        self.push_loose()

    def push_loose(self) -> None:
        """Puts up the new whole files of the run itself and of stages in work, and takes away those that are gone."""
        with self._sending:
            here = [name for name in self._whole_files(self.local) if not self._is_kept_back(name)]
            for name in sorted(set(self._sent) - set(here), key=_last_first, reverse=True):
                if not (self.local / name).exists() and not self._is_kept_back(name):
                    self._remove(name)
            for name in here:
                with suppress(FileNotFoundError):  # replaced, or swept, meanwhile
                    self._put(name)

    def begin(self, directory: Path) -> None:
        """Says that a stage is due again, before its old outputs go."""
        stage = directory.relative_to(self.local).as_posix()
        with self._sending:
            self._beginning.add(stage)
            self._remove(f"{stage}/{MANIFEST_FILE}")

    def begun(self, directory: Path) -> None:
        """Makes the stage at the URL what it is here, where it begins or goes on: no file is of another attempt."""
        stage = directory.relative_to(self.local).as_posix()
        with self._sending:
            old = set(self._place.names(stage)) - set(self._whole_files(directory))
            if old:
                self._remove(f"{stage}/{ATTEMPT_FILE}")
            for name in sorted(old, key=_last_first, reverse=True):
                self._remove(name)
            self._put(f"{stage}/{ATTEMPT_FILE}")
            self._beginning.discard(stage)

    @contextmanager
    def held(self, say: Callable[[str], None], stop: Callable[[], None]) -> Iterator[None]:
        """Holds the run at the URL and keeps what is new going up. Raises `RunError` while another driver holds it.

        `stop` is called where another driver has taken it over; then nothing more goes up.
        """

        def on_loss() -> None:
            say(f"warning: {self.url}: another driver has taken this run over; this one stops")
            stop()

        with self._claim.held(say, on_loss):
            failed: list[str] = []
            try:
                with self._threads(failed):
                    yield
            except BaseException:
                try:
                    self._push_rest()
                except RunError as error:  # why the run ended matters more
                    say(f"warning: {error}; what is new is kept in {self.local}, and goes up when the run goes on")
                raise
            if failed:
                say(f"warning: {failed[-1]}; trying once more")
            self._push_rest()

    @contextmanager
    def _threads(self, failed: list[str]) -> Iterator[None]:
        """What goes on beside the run. `failed` is told what an upload failed of."""
        ended = threading.Event()
        threads = [
            threading.Thread(target=self._follow, args=(ended, failed), name="mirror", daemon=True),
            # In a thread of its own: an upload that takes long is no silence.
            threading.Thread(target=self._beat, args=(ended,), name="heartbeat", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def _follow(self, ended: threading.Event, failed: list[str]) -> None:
        while not ended.wait(self.interval):
            try:
                self.push_loose()
                failed.clear()
            except RunError as error:  # the work goes on; what is owed goes up later
                failed.append(str(error))

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(self.interval / BEATS):
            with suppress(RunError):
                self._put_heartbeat()

    def _push_rest(self) -> None:
        if self._claim.lost:
            return
        self.push_all()
        self._put_heartbeat()
        if not (self.local / LIVE_FILE).exists():
            self._place.remove(LIVE_FILE)

    def _put_heartbeat(self) -> None:
        with suppress(FileNotFoundError):
            self._put(LIVE_FILE)

    def _pull_finished(self, stage: str, checkpoints: bool) -> bool:
        """Fetches a finished stage, or all but its checkpoint. False where ours is newer, and stays."""
        directory, name = self.local / stage, f"{stage}/{MANIFEST_FILE}"
        content = self._place.read(name)
        if content is None:
            return False  # It has been taken away since.
        try:
            up = Manifest.model_validate_json(content)
        except ValueError:
            raise RunError(f"{self.url}/{name}: no manifest of this version") from None
        here = Manifest.read(directory) if directory.is_dir() else None
        if here is not None and here.started > up.started:
            return False
        if here != up:
            (directory / MANIFEST_FILE).unlink(missing_ok=True)
        for each, file in up.files.items():
            path = directory / each
            if not checkpoints and each.startswith(f"{CHECKPOINT}/"):
                continue
            same = (
                path.is_file() and path.stat().st_size == file.size and (here == up or sha256_of(path) == file.sha256)
            )
            if same:
                continue
            try:
                self._fetch(f"{stage}/{each}", file.sha256)
            except FileNotFoundError:
                if self._place.read(name) != content:
                    return False  # It has begun anew meanwhile.
                raise RunError(
                    f"{self.url}/{stage}/{each}: is missing, though a manifest names it; remove that stage there"
                ) from None
        if here != up:
            directory.mkdir(parents=True, exist_ok=True)
            with whole(directory / MANIFEST_FILE) as path:
                path.write_bytes(content)
        return True

    def _pull_in_work(self, stage: str, there: Mapping[str, int]) -> None:
        """Fetches a stage in work, unless ours is what that attempt has come to. Files of other attempts go."""
        directory = self.local / stage
        attempt = _json(self._place.read(f"{stage}/{ATTEMPT_FILE}"))
        manifest = Manifest.read(directory) if directory.is_dir() else None
        if manifest is not None and _same({"digest": manifest.digest, "inputs": manifest.inputs}, attempt):
            return
        path = directory / ATTEMPT_FILE
        if manifest is not None or not path.is_file() or not _same(_json(path.read_bytes()), attempt):
            remove(directory)
        self._fetch_new(there)

    def _fetch_new(self, there: Mapping[str, int]) -> None:
        """Fetches what is not here, or of another size; what makes other files count comes after them."""
        for name in sorted(there, key=_last_first):
            path = self.local / name
            new = not path.is_file() or path.stat().st_size != there[name] or _last(name) == ATTEMPT_FILE
            if new and _last(name) != MANIFEST_FILE:
                self._fetch(name)

    def _fetch(self, name: str, sha256: str | None = None) -> None:
        with whole(self.local / name) as path:
            self._place.get(name, path)
            if sha256 is not None and sha256_of(path) != sha256:
                raise RunError(f"{self.url}/{name}: is not the file that its manifest names; remove that stage there")

    def _put(self, name: str) -> None:
        path = self.local / name
        status = path.stat()
        state = status.st_size, status.st_mtime_ns
        if self._sent.get(name) != state and not self._claim.lost:
            self._place.put(name, path)
            self._sent[name] = state

    def _remove(self, name: str) -> None:
        if not self._claim.lost:
            self._sent.pop(name, None)
            self._place.remove(name)

    def _is_kept_back(self, name: str) -> bool:
        """Whether a file is of a stage that is finished, or about to begin."""
        stages = [parent for parent in Path(name).parents if parent != Path()]
        return any(
            (self.local / stage / MANIFEST_FILE).is_file() or stage.as_posix() in self._beginning for stage in stages
        )

    def _whole_files(self, directory: Path) -> list[str]:
        """Names of the files that are in place, but for locks, heartbeats, manifests and what is put aside; what makes
        others count last.

        A save of a training is in place when its last file is.
        """
        others = (LOCK_FILE, LIVE_FILE, MANIFEST_FILE)
        found = (path for path in directory.rglob("*") if path.name not in others)
        placed = [
            path
            for path in found
            if path.is_file() and not any(part.startswith(PARTIAL) or part == ASIDE for part in path.parts)
        ]
        names = [path.relative_to(self.local).as_posix() for path in placed if not _is_of_half_a_save(path)]
        return sorted(names, key=_last_first)


def _is_of_half_a_save(path: Path) -> bool:
    return any(each.parent.name == SAVES and each.is_dir() and not (each / COMPLETE).exists() for each in path.parents)


def _last_first(name: str) -> tuple[bool, bool, bool, str]:
    """A key to sort by: an attempt's record last, before it the mark of a save. They say that the rest is there."""
    # Metrics first: a chunk whose record is missing would not be done, and noted, again.
    return _last(name) == ATTEMPT_FILE, _last(name) == COMPLETE, _last(name) != METRICS_FILE, name


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(a.get(key) == b.get(key) for key in ("digest", "inputs"))


def _json(content: bytes | None) -> dict[str, Any]:
    return {} if content is None else dict(json.loads(content))


def _stage_of(name: str) -> str:
    return name.rpartition("/")[0]


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]
