"""The page of a run at work: it shows what happens, in a real browser, and lets nobody in who has no business there."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import RunError
from pipelines.files import write_json
from pipelines.report import write_report
from pipelines.serving.newest import ROWS, newest
from pipelines.serving.server import RunServer
from pipelines.shards import Shards
from tests.pipelines.test_survival import CHILD, wait_for, write_recipe
from tests.report.chromium import Tab, needs_chromium, open_tab
from tests.report.runs import HOSTILE

Ask = Callable[..., http.client.HTTPResponse]


@pytest.fixture(scope="module")
def served(run_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunServer]:
    """A copy of the demo run with its report."""
    tmp_path = tmp_path_factory.mktemp("served")
    shutil.copytree(run_directory, tmp_path / "demo")
    write_report(tmp_path / "demo")
    (tmp_path / "secret.txt").write_text("secret")
    with RunServer(tmp_path / "demo") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ask(served: RunServer) -> Ask:
    def send(path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", served.server_address[1], timeout=30)
        connection.request(method, path, headers=headers)
        return connection.getresponse()

    return send


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "BREW"])
def test_nothing_but_reading(method: str, ask: Ask, served: RunServer) -> None:
    before = {path: path.stat().st_mtime_ns for path in served.directory.rglob("*")}
    for path in ("/", "/live.json", "/report.html", "/new"):
        answer = ask(path, method)
        assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD"
    assert {path: path.stat().st_mtime_ns for path in served.directory.rglob("*")} == before


@pytest.mark.parametrize(
    "path",
    [
        "/recipe.yaml",
        "/../secret.txt",
        "/report.html/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "//etc/passwd",
        "/etc/passwd",
        "/tune/checkpoint/skill.json",
        "/page.js/",
        "/live.json%00",
        "/favicon.ico",
    ],
)
def test_nothing_but_the_routes(path: str, ask: Ask) -> None:
    answer = ask(path)
    assert answer.status == 404 and b"secret" not in answer.read()


def test_heads_have_no_bodies_and_answers_their_policies(ask: Ask) -> None:
    for path, kind in (("/", "text/html"), ("/page.js", "text/javascript"), ("/live.json", "application/json")):
        whole, head = ask(path), ask(path, "HEAD")
        body = whole.read()
        assert whole.status == head.status == 200 and head.read() == b""
        assert int(head.headers["Content-Length"]) == len(body)
        assert whole.headers["Content-Type"].startswith(kind)
        assert whole.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in whole.headers["Content-Security-Policy"]
        assert "unsafe" not in whole.headers["Content-Security-Policy"]
    assert ask("/report.html").headers["Content-Security-Policy"].startswith("sandbox allow-scripts;")


def test_foreign_names_are_turned_away(ask: Ask, served: RunServer) -> None:
    port = served.server_address[1]
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "192.168.0.7", "[2001:db8::1]", ""):
        assert ask("/live.json", Host=host).status == 421, host
    for host in ("localhost", f"LOCALHOST:{port}", "127.0.0.1:9999", "[::1]:80"):  # such as at the end of a tunnel
        assert ask("/live.json", Host=host).status == 200, host


def test_others_are_let_in_only_by_name(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::"):
        with pytest.raises(RunError, match="--expose"):
            RunServer(tmp_path, host)
    with RunServer(tmp_path, "0.0.0.0", expose=True) as server:
        assert not server.local
        assert server.knows("192.168.0.7:80") and server.knows(socket.gethostname())
        assert not server.knows("evil.example") and not server.knows(None)
        with pytest.raises(RunError, match="cannot be listened at"):
            RunServer(tmp_path, "0.0.0.0", server.server_address[1], expose=True)
    with pytest.raises(RunError, match="cannot be listened at"):
        RunServer(tmp_path, "no.such.host.invalid")


def write_shards(stage: Path, rows: list[dict[str, Any]], inputs: dict[str, str], folder: str = "shards") -> None:
    stage.mkdir(exist_ok=True)
    write_json(stage / "attempt.json", {"digest": "", "inputs": inputs, "attempts": 1})
    Shards(stage / folder, {}).run(rows, 5, lambda chunk: chunk)


@pytest.fixture
def written(tmp_path: Path, run_directory: Path) -> Path:
    """A run whose filter measures pairs of `generate`, one of them hostile, and whose evaluation has begun."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    root = tmp_path / "live"
    root.mkdir()
    (root / "recipe.yaml").write_text("name: live\n")
    image = json.loads((run_directory / "evaluate/update/trials.jsonl").read_text().splitlines()[0])["image"]
    pairs = [
        {
            "id": f"p{n}/0", "image": image, "question": HOSTILE if n == 11 else f"what is {n}?",
            "answer": str(n), "raw": f"raw {n}", "reason": "unparsable" if n % 5 == 4 else None,
        }
        for n in range(12)
    ]  # fmt: skip
    write_shards(root / "generate", pairs, {"tune": "x"})
    parquet.write_table(arrow.Table.from_pylist(pairs), root / "generate/pairs.parquet")
    measured = [
        {"id": row["id"], "rebuilt_question": "again?", "rebuilt_answer": HOSTILE} for row in pairs if not row["reason"]
    ]
    write_shards(root / "filter", measured, {"tune": "x", "generate": "y"}, "measured")
    trial = {
        "problem_id": "q1", "image": None, "prompt": [{"role": "user", "content": HOSTILE}], "completion": "it " * 2000,
        "gold": "4", "outcome": "wrong",
    }  # fmt: skip
    write_shards(root / "evaluate", [trial | {"problem_id": f"q{n}"} for n in range(3)], {}, "shards/update/0-1")
    return root


def test_files_that_cannot_be_shown_are_one_line(written: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shard = next((written / "generate").rglob("0*.jsonl"))
    shard.write_text('{"raw": \n', encoding="utf-8")
    with RunServer(written) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            for name, status in (("/newest.json", 500), ("/live.json", 200)):
                connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
                connection.request("GET", name)
                answer = connection.getresponse()
                assert answer.status == status
                text = answer.read().decode()
                assert status == 200 or text.startswith(f"{name}: the run's files cannot be shown (JSONDecodeError: ")
                assert text.count("\n") == (status == 500)
        finally:
            server.shutdown()
            thread.join()
    assert capfd.readouterr().err == ""


def test_newest_rows_come_first_and_triads_are_whole(written: Path) -> None:
    found = {group["stage"]: group for group in newest(written)}
    assert {name: group["what"] for name, group in found.items()} == {
        "generate": "pairs", "filter": "triads", "evaluate": "answers",
    }  # fmt: skip
    assert [item["id"] for item in found["generate"]["items"]] == [f"p{n}/0" for n in reversed(range(12))]
    assert [item["verdict"] for item in found["generate"]["items"][:3]] == [None, None, "unparsable"]
    top = found["filter"]["items"][0]
    assert top["id"] == "p11/0" and top["image"].startswith("data:image/png;base64,")
    assert top["lines"] == [
        ["asked", HOSTILE], ["answered", "11"], ["question rebuilt", "again?"], ["answer rebuilt", HOSTILE],
    ]  # fmt: skip
    answer = found["evaluate"]["items"][0]
    assert answer["id"] == "q2" and answer["verdict"] == "wrong"
    assert dict(answer["lines"])["answered"].endswith(" …") and len(dict(answer["lines"])["answered"]) < 2010
    assert all(len(group["items"]) <= ROWS for group in found.values())


@pytest.fixture(scope="module")
def shared() -> Iterator[Tab]:
    with open_tab() as tab:
        yield tab


@pytest.fixture
def tab(shared: Tab) -> Tab:
    shared.visit("about:blank")  # A page that still asks would complain of its server, which is gone.
    shared.complaints.clear()
    shared.shape(1100, 1000)
    return shared


@needs_chromium
def test_hostile_text_stays_text(tab: Tab, written: Path) -> None:
    with RunServer(written) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        tab.visit(server.url)
        tab.until("document.querySelector('#run').textContent === 'live'")
        tab.value("document.querySelector('#tab-newest').click()")
        tab.until("document.querySelectorAll('#newest .triad').length === 12 + 10 + 3")
        text = tab.value("document.querySelector('#newest').textContent")
        assert HOSTILE in text
        assert tab.value("document.querySelectorAll('#newest script, #newest img[src^=http]').length") == 0
        pictures = "[...document.querySelectorAll('#newest img')]"
        tab.until(f"{pictures}.length && {pictures}.every(each => each.naturalWidth > 0)")
        assert tab.value("document.querySelector('#now').hidden") is True
        server.shutdown()
        server.server_close()
        tab.until("document.querySelector('#state').textContent.includes('does not answer')")
    assert all("ERR_CONNECTION" in line for line in tab.complaints), tab.complaints


@needs_chromium
def test_the_report_works_in_its_sandbox(tab: Tab, served: RunServer) -> None:
    tab.visit(served.url)
    tab.until("!document.querySelector('#report').hidden")
    assert "No process" in tab.value("document.querySelector('#state').textContent")
    tab.visit(served.url + "report.html")
    tab.until("document.querySelector('#samples form') && !document.querySelector('#samples form').hidden")
    assert not tab.complaints
    assert tab.value("fetch('/live.json').then(() => 'read', () => 'refused')") == "refused"


@needs_chromium
def test_a_run_is_seen_at_work_killed_and_at_work_again(tab: Tab, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, count=1000, arms=False, seconds=0.5)
    command = [sys.executable, str(CHILD), "trivium"]
    arguments = ["run", str(recipe), "--runs", str(tmp_path / "runs")]
    run = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
    wait_for((tmp_path / "runs/toy/recipe.yaml").exists, seconds=60)
    serving = subprocess.Popen(
        [*command, "serve", "toy", "--runs", str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background lets them ignore Ctrl-C, and what they start as well.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert serving.stdout is not None
        url = serving.stdout.readline().split()[0]
        assert url.startswith("http://127.0.0.1:")
        state = "document.querySelector('#state').textContent"
        tab.visit(url)
        tab.until(f"{state}.startsWith('running: grow')")
        tab.until("document.querySelector('#bar').value >= 8")
        facts = tab.value("document.querySelector('#facts').textContent")
        for name in ("growing", "of 1\u202f000", "rows per second", "left of this stage", "memory, MiB"):
            assert name in facts, facts
        before = tab.value("document.querySelector('#bar').value")
        tab.until(f"document.querySelector('#bar').value > {before}")
        run.send_signal(signal.SIGKILL)
        run.wait()
        tab.until(f"{state}.startsWith('stopped: grow')")
        assert "killed" in tab.value("document.querySelector('#why').textContent")
        assert tab.value("document.querySelector('#command').textContent") == f"trivium {' '.join(arguments)}"
        assert tab.value("document.querySelector('#resume').hidden") is False
        again = [*command, *arguments, "stages.grow.seconds=0"]
        assert subprocess.run(again, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
        tab.until(f"{state}.startsWith('No process')")
        states = "[...document.querySelectorAll('#stages td:nth-child(2)')].map(each => each.textContent)"
        assert tab.value(states) == ["finished"] * 3
        assert tab.value("document.querySelector('#end').hidden") is True
        assert not tab.complaints
    finally:
        run.kill()
        serving.send_signal(signal.SIGINT)
        assert serving.wait(30) == 0
