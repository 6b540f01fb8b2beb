"""A headless Chromium over its debugging pipe: a page is opened, read, typed into, and photographed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

PATIENCE = 60
"""Seconds that a condition may take."""

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")


class Tab:
    """One tab. `complaints`: exceptions, and what the console and the content policy said, in order."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = os.fdopen(send, "wb", buffering=0), os.fdopen(receive, "rb", buffering=0)
        self._rest = b""
        self._calls = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Mapping[str, Any]:
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer
                return answer["result"]  # type: ignore[no-any-return]

    def open(self, path: Path, address: str = "") -> None:
        """Loads a file and waits until its samples are there."""
        self.visit(f"file://{path}{address}")
        self.until("!document.querySelector('#samples form') || !document.querySelector('#samples form').hidden")

    def visit(self, url: str) -> None:
        """Loads a page; of the network only this machine can be reached."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        """What a script gives, as JSON; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Waits until a condition holds. The page itself cannot wait while its scripts are off."""
        end = time.monotonic() + PATIENCE
        while not self.value(f"!!({condition})"):
            assert time.monotonic() < end, f"after {PATIENCE} s still not: {condition}"
            time.sleep(0.02)

    def press(self, key: str, text: str = "") -> None:
        """Presses a key of that name on what has the focus."""
        code = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "ArrowDown": 40, " ": 32}[key]
        for kind in ("keyDown", "keyUp"):
            words = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **words)

    def photograph(self, path: Path, width: int = 1100, height: int = 1400, dark: bool = False) -> None:
        self.shape(width, height, dark)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def shape(self, width: int, height: int, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def _next(self) -> Mapping[str, Any]:
        while b"\0" not in self._rest:
            read = self._receive.read(1 << 20)
            assert read, "Chromium has ended"
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\0")
        message: Mapping[str, Any] = json.loads(line)
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(message["params"]))
        return message


@contextmanager
def open_tab() -> Iterator[Tab]:
    """A tab of a browser of its own, which reaches no network."""
    to_browser, own_end = os.pipe()
    other_end, from_browser = os.pipe()
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The pipe is at 3 and 4 by convention. The proxy is no place at all: nothing can be fetched.
        command = (
            f"exec chromium --headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe "
            f"--disable-background-networking --disable-component-update --disable-sync --proxy-server=127.0.0.1:9 "
            f"--user-data-dir={profile} 3<&{to_browser} 4>&{from_browser}"
        )
        browser = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Tab(own_end, other_end)
        finally:
            browser.terminate()
            browser.wait(30)
