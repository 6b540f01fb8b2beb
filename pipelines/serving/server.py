"""The server: a fixed set of addresses, GET and HEAD, this machine alone unless told otherwise."""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import asdict
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipelines.errors import RunError
from pipelines.live import read_live
from pipelines.report import REPORT_FILE
from pipelines.serving.newest import newest

_HERE = Path(__file__).parent
_STYLES = (_HERE.parent / "report/templates/style.css", _HERE / "page.css")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# The report brings a policy of its own. In a sandbox even a report that somebody tampered with reads nothing else here.
_REPORT_POLICY = "sandbox allow-scripts; frame-ancestors 'none'"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RunServer(ThreadingHTTPServer):
    """Serves one run's directory at `host`, an address or a name, and `port` (0: any that is free).

    Raises `RunError` where that cannot be had, or is open to others and `expose` does not allow it.
    """

    daemon_threads = True

    def __init__(self, directory: Path, host: str = "127.0.0.1", port: int = 0, expose: bool = False) -> None:
        self.directory = directory
        self.host = host
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.address_family = family
            self.local = ipaddress.ip_address(address[0]).is_loopback
            if not self.local and not expose:
                raise RunError(
                    f"--host {host}: others could read this run, for no password is asked; add --expose to let them, "
                    "or keep 127.0.0.1 and reach it by `ssh -L`"
                )
            super().__init__((str(address[0]), port), _Handler)
        except OSError as error:
            raise RunError(f"--host {host} --port {port}: cannot be listened at ({error.strerror or error})") from None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def knows(self, host: str | None) -> bool:
        """Whether a request's `Host` is one of ours. A foreign name is a page of others that points its name at us."""
        name = _name_of(host or "")
        if name in ("localhost", self.host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return not self.local and name in self._names
        return address.is_loopback or not self.local

    @cached_property
    def _names(self) -> set[str]:
        return {socket.gethostname().lower(), socket.getfqdn().lower()}


class _Handler(BaseHTTPRequestHandler):
    server: RunServer
    server_version, sys_version = "trivium", ""
    timeout = 30  # seconds that a connection may keep us waiting

    def do_GET(self) -> None:
        if not self.server.knows(self.headers.get("Host")):
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", "this server goes by another name\n")
            return
        place = self.path.partition("?")[0]
        try:
            self._route(place)
        except FileNotFoundError:  # The run has removed what was about to be read: a stage begins anew.
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", "the run has changed meanwhile; ask again\n")
        except (ConnectionError, TimeoutError):  # The reader has gone, or takes nothing any more.
            self.close_connection = True
        except Exception as error:  # What the run's folder holds is not ours to trust; the other places still answer.
            line = (
                f"{place}: the run's files cannot be shown ({type(error).__name__}: {' '.join(str(error).split())})\n"
            )
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", line)

    do_HEAD = do_GET

    def _route(self, place: str) -> None:
        match place:
            case "/":
                self._answer(HTTPStatus.OK, "text/html", _read(_HERE / "page.html"))
            case "/page.js":
                self._answer(HTTPStatus.OK, "text/javascript", _read(_HERE / "page.js"))
            case "/page.css":
                self._answer(HTTPStatus.OK, "text/css", "\n".join(map(_read, _STYLES)))
            case "/live.json":
                report = (self.server.directory / REPORT_FILE).is_file()
                self._answer_json({**asdict(read_live(self.server.directory)), "report": report})
            case "/newest.json":
                self._answer_json(newest(self.server.directory))
            case "/report.html" if (report_file := self.server.directory / REPORT_FILE).is_file():
                self._answer(HTTPStatus.OK, "text/html", _read(report_file), _REPORT_POLICY)
            case _:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page\n")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):  # Any other method, known to HTTP or not.
            return self._refuse
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        pass  # A line each two seconds says nothing.

    def _refuse(self) -> None:
        self.close_connection = True
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", "this page is only read\n", allow="GET, HEAD")

    def _answer_json(self, value: Any) -> None:
        self._answer(HTTPStatus.OK, "application/json", json.dumps(value, ensure_ascii=False))

    def _answer(
        self, status: HTTPStatus, kind: str, text: str, policy: str = _POLICY, allow: str | None = None
    ) -> None:
        content = text.encode("utf-8", "replace")
        self.send_response(status)
        headers = {**_HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content))}
        headers["Content-Security-Policy"] = policy
        if allow:
            headers["Allow"] = allow
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _name_of(host: str) -> str:
    """The host in a `Host` header, without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
