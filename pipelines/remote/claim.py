"""The claim of a driver on a run at a URL. Stores know no locks, so that the driver signs anew again and again."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.errors import RunError
from pipelines.lock import LOCK_FILE
from pipelines.process import born, is_alive
from pipelines.remote.place import Place

SILENCE = 3
"""Intervals without a new sign after which a driver counts as dead."""
_SETTLE = 0.1
"""Of an interval: the time after which a claim is looked at again, so that of two that began at once one gives way."""


class Claim:
    """`lock` at `place`, signed every `interval` seconds. `lost`: another driver has taken the run over."""

    def __init__(self, place: Place, interval: float) -> None:
        self._place, self._interval = place, interval
        self._mine = {
            "process": os.getpid(), "born": born(os.getpid()), "host": socket.gethostname(),
            "nonce": os.urandom(8).hex(),
        }  # fmt: skip
        self.lost = False

    @contextmanager
    def held(self, say: Callable[[str], None], on_loss: Callable[[], None]) -> Iterator[None]:
        """Holds the claim. Raises `RunError` while another driver does; `on_loss` is called where one takes it over."""
        began = f"{self._place.url}: another driver began at the same time; start it once"
        seen = self._wait_for_silence(say)
        try:
            self._sign(new=not seen)
        except FileExistsError:
            raise RunError(began) from None
        time.sleep(_SETTLE * self._interval)
        if self._is_another_s():
            raise RunError(began)
        ended = threading.Event()
        # Nothing else is done in this thread: an upload that takes long is no silence.
        signing = threading.Thread(target=self._keep_signing, args=(ended, on_loss), name="claim", daemon=True)
        signing.start()
        try:
            yield
        finally:
            ended.set()
            signing.join()
            if not self.lost:
                self._place.remove(LOCK_FILE)

    def _keep_signing(self, ended: threading.Event, on_loss: Callable[[], None]) -> None:
        while not ended.wait(self._interval):
            try:
                if self._is_another_s():
                    self.lost = True
                    on_loss()
                    return
                self._sign()
            except RunError:
                continue  # The store does not answer. It may later.

    def _wait_for_silence(self, say: Callable[[str], None]) -> bool:
        """Whether there is the claim of a driver that is dead. Raises `RunError` where that lives."""
        first = self._signed()
        if not first:
            return False
        url, who = self._place.url, f"process {first['process']} on {first['host']}"
        if first["host"] != socket.gethostname() or is_alive(int(first["process"]), float(first["born"])):
            say(f"{url}: {who} was at work; waiting {SILENCE * self._interval:.0f} s for a sign of life")
            deadline = time.monotonic() + SILENCE * self._interval
            while time.monotonic() < deadline:
                time.sleep(self._interval / 4)
                now = self._signed()
                if not now:
                    return False  # It has come to its end.
                if now != first:
                    raise RunError(f"{url} is in use by {who}: wait for it, stop it, or use another --runs")
        say(f"{url}: {who} has died; going on with what it left")
        return True

    def _is_another_s(self) -> bool:
        signed = self._signed()
        return bool(signed) and signed["nonce"] != self._mine["nonce"]

    def _sign(self, new: bool = False) -> None:
        self._place.write(LOCK_FILE, json.dumps({**self._mine, "time": time.time()}).encode(), new)

    def _signed(self) -> dict[str, Any]:
        content = self._place.read(LOCK_FILE)
        return {} if content is None else dict(json.loads(content))
