"""The client against a real vLLM server, and against servers that are slow, wrong or absent."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from engines.base import Decoding, EngineError, Request, ScoreRequest
from engines.endpoint import EndpointEngine
from engines.settings import EndpointSettings, TransformersSettings
from engines.transformers import TransformersEngine
from tests.engines.conftest import stopped

START = 150.0  # seconds until its tests are skipped; three processes import vLLM one after the other


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Server:
    url: str
    checkpoint: str
    reference: str  # the same weights, without the sampling defaults that the server finds beside its own


@pytest.fixture(scope="module")
def server(make_vlm: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A vLLM server in a process of its own."""
    pytest.importorskip("vllm", reason="vLLM is not installed", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("server")
    served, reference, log, port = folder / "served", folder / "reference", folder / "log.txt", _free_port()
    for copy in (served, reference):
        shutil.copytree(make_vlm(lively=True), copy)
    # A server fills what a request leaves out from this file, so the client has to say everything.
    defaults = {"repetition_penalty": 1.9, "top_k": 1, "do_sample": True}
    generation = served / "generation_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | defaults))
    command = ["-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    options = ["--model", str(served), "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8"]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": "1",
    }
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, *command, *options], stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + START
        while not _answers(f"http://127.0.0.1:{port}/health"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"the vLLM server did not start within {START:g} s: {log.read_text()[-500:]}")
            time.sleep(0.5)
        yield Server(f"http://127.0.0.1:{port}", str(served), str(reference))
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def test_endpoint_agrees_with_transformers(
    server: Server, requests_: list[Request], score_requests: list[ScoreRequest]
) -> None:
    local = TransformersEngine.open(TransformersSettings(), server.reference)
    with closing(EndpointEngine(EndpointSettings(url=server.url), server.checkpoint)) as engine:
        expected = list(local.generate(requests_))
        assert len({generation.text for generation in expected}) > 1
        assert any(len(set(g.token_ids)) < len(g.token_ids) for g in expected)  # a repetition penalty would show
        assert list(engine.generate(requests_)) == expected
        asked = stopped(requests_, expected)
        assert list(engine.generate(asked)) == list(local.generate(asked)) != expected
        for one, other in zip(local.score(score_requests), engine.score(score_requests), strict=True):
            assert other.error is None
            assert other.logprobs == pytest.approx(one.logprobs, abs=1e-4, rel=0)


def test_endpoint_samples_by_seed_and_reports_bad_rows(
    server: Server, requests_: list[Request], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"")
    warm = Decoding(12, temperature=1.0)
    asked = [Request(r.id, r.messages, r.image, warm, seed=i) for i, r in enumerate(requests_)]
    bad = [
        Request("torn", requests_[0].messages, str(torn)),
        Request("long", [{"role": "user", "content": "what? " * 600}]),
    ]
    with closing(EndpointEngine(EndpointSettings(url=server.url), server.checkpoint)) as engine:
        first = list(engine.generate([*bad, *asked]))
        assert [g.finish for g in first[:2]] == ["error", "error"]
        assert "torn.png" in str(first[0].error) and "512" in str(first[1].error)
        assert list(engine.generate(asked)) == first[2:]
        assert len({g.text for g in first[2:]}) > 1


def test_another_model_is_not_taken_for_the_checkpoint(server: Server) -> None:
    other = server.reference
    with pytest.raises(EngineError, match=f"serves {server.checkpoint}, not {other}"):
        EndpointEngine(EndpointSettings(url=server.url), other)
    EndpointEngine(EndpointSettings(url=server.url, model=server.checkpoint), other).close()


class _Script(BaseHTTPRequestHandler):
    """Serves `replies` in order: (seconds to wait, status, body); the last one again and again."""

    replies: Sequence[tuple[float, int, Any]] = ()
    asked: list[str]

    def _reply(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(self.path)
        wait, status, body = self.replies[min(len(self.asked), len(self.replies)) - 1]
        time.sleep(wait)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.suppress(ConnectionError):  # a client that waited no longer
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_POST = _reply

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def script() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """Starts a server with scripted replies; returns its url and the paths it was asked for."""
    servers: list[ThreadingHTTPServer] = []

    def start(*replies: tuple[float, int, Any]) -> tuple[str, list[str]]:
        asked: list[str] = []
        handler = type("Handler", (_Script,), {"replies": replies, "asked": asked})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}", asked

    yield start
    for running in servers:
        running.shutdown()
        running.server_close()


def _models(name: str) -> dict[str, Any]:
    return {"data": [{"id": name, "owned_by": "someone"}]}


_ANSWER = {
    "choices": [{"finish_reason": "stop", "message": {"content": " red "}}],
    "usage": {"prompt_tokens": 7},
}


def test_a_server_that_never_answers_ends_the_wait_with_what_was_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts connections, and that is all
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(EngineError, match=r"GET /v1/models had no answer after 0\.5 s"):
            EndpointEngine(EndpointSettings(url=url, timeout=0.5), "anything")
        assert time.monotonic() - started < 5


def test_a_server_that_stops_answering_ends_the_stream(
    script: Callable[..., tuple[str, list[str]]], make_vlm: Callable[..., Path], requests_: list[Request]
) -> None:
    checkpoint = str(make_vlm())
    url, asked = script((0, 200, _models(checkpoint)), (0, 200, _ANSWER), (3, 200, _ANSWER))
    with closing(EndpointEngine(EndpointSettings(url=url, timeout=0.5, concurrency=1), checkpoint)) as engine:
        stream = engine.generate(requests_)
        first = next(stream)
        assert (first.id, first.text, first.token_ids, first.prompt_tokens) == ("r0", "red", (), 7)
        with pytest.raises(EngineError, match=r"POST /v1/chat/completions had no answer after 0\.5 s"):
            next(stream)
    assert len(asked) < len(requests_)  # those behind it were not sent into the void


def test_nobody_listens() -> None:
    with pytest.raises(EngineError, match="is the server running"):
        EndpointEngine(EndpointSettings(url=f"http://127.0.0.1:{_free_port()}"), "anything")


def test_a_busy_server_is_asked_again(
    script: Callable[..., tuple[str, list[str]]],
    make_vlm: Callable[..., Path],
    requests_: list[Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engines.endpoint._PAUSES", (0.01, 0.01))
    checkpoint = str(make_vlm())
    busy = (0, 503, {"error": {"message": "busy"}})
    url, asked = script((0, 200, _models(checkpoint)), busy, busy, (0, 200, _ANSWER), busy)
    with closing(EndpointEngine(EndpointSettings(url=url, concurrency=1), checkpoint)) as engine:
        stream = engine.generate(requests_[:2])
        assert next(stream).text == "red"
        with pytest.raises(EngineError, match="answered 503: busy"):
            next(stream)
    assert len(asked) == 1 + 3 + 3


def test_an_answer_that_was_filtered_is_that_row_s_error_and_no_answer(
    script: Callable[..., tuple[str, list[str]]], make_vlm: Callable[..., Path], requests_: list[Request]
) -> None:
    checkpoint = str(make_vlm())
    filtered = {**_ANSWER, "choices": [{"finish_reason": "content_filter", "message": {"content": "r"}}]}
    url, _ = script((0, 200, _models(checkpoint)), (0, 200, filtered), (0, 200, _ANSWER))
    with closing(EndpointEngine(EndpointSettings(url=url, concurrency=1), checkpoint)) as engine:
        first, second = engine.generate(requests_[:2])
    assert first.finish == "error" and "content_filter" in str(first.error)
    assert second.finish == "stop" and second.text == "red"


def test_a_server_that_goes_on_behind_a_stop_string_is_cut(
    script: Callable[..., tuple[str, list[str]]], make_vlm: Callable[..., Path], requests_: list[Request]
) -> None:
    checkpoint = str(make_vlm())
    long = {"choices": [{"finish_reason": "length", "message": {"content": " red\n\nQ"}}], "usage": _ANSWER["usage"]}
    url, _ = script((0, 200, _models(checkpoint)), (0, 200, long))
    asked = [replace(requests_[0], decoding=Decoding(12, stop=stop)) for stop in (("\n\n", "Q"), ("A",))]
    with closing(EndpointEngine(EndpointSettings(url=url, concurrency=1), checkpoint)) as engine:
        made = [(each.text, each.finish) for each in engine.generate(asked)]
    assert made == [("red", "stop"), ("red\n\nQ", "length")]


def test_a_page_instead_of_an_answer_is_one_line(script: Callable[..., tuple[str, list[str]]]) -> None:
    url, _ = script((0, 200, b"<html>log in</html>"))
    with pytest.raises(EngineError, match="answered something that is no JSON"):
        EndpointEngine(EndpointSettings(url=url), "anything")


def test_likelihoods_need_a_server_that_offers_them(
    script: Callable[..., tuple[str, list[str]]], make_vlm: Callable[..., Path], score_requests: list[ScoreRequest]
) -> None:
    checkpoint = str(make_vlm())
    url, _ = script((0, 200, _models(checkpoint)), (0, 200, _ANSWER))
    with (
        closing(EndpointEngine(EndpointSettings(url=url), checkpoint)) as engine,
        pytest.raises(EngineError, match="prompt_logprobs"),
    ):
        list(engine.score(score_requests))


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(EngineError, match="MY_KEY"):
        EndpointEngine(EndpointSettings(url="http://127.0.0.1:9", api_key_env="MY_KEY"), "anything")
