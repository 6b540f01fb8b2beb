"""Several workers behind one engine: same answers, in order, and nothing lost or done twice when workers are lost."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from engines.base import Decoding, EngineError, Request, ScoreRequest
from engines.replicated import cluster
from engines.replicated.engine import ReplicatedEngine
from engines.replicated.pool import check_versions
from engines.replicated.worker import Worker, packed, unpacked, versions
from engines.settings import TransformersSettings, VllmSettings, unplaced
from tests.replicated.conftest import PROCESSORS, diary
from tests.replicated.scripted_engine import ScriptedEngine, open_scripted

Opened = Callable[..., ReplicatedEngine]
Script = Callable[..., Path]


def asked(count: int, images: int = 25) -> list[Request]:
    """Questions whose images are interleaved."""
    return [
        Request(f"r{i}", [{"role": "user", "content": f"q{i}"}], f"{i % images}.png", Decoding(), i)
        for i in range(count)
    ]


def scored(count: int) -> list[ScoreRequest]:
    return [ScoreRequest(f"s{i}", [{"role": "user", "content": "q"}], f"t{i}", f"{i % 5}.png") for i in range(count)]


def alone(folder: Path, requests: list[Request]) -> list[object]:
    """What one engine in this process answers."""
    return list(ScriptedEngine(TransformersSettings(batch_size=8), str(folder)).generate(requests))


def until(what: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


@pytest.mark.parametrize("replicas", [1, 3])
def test_any_number_of_workers_answers_the_same_in_order(replicas: int, opened: Opened, script: Script) -> None:
    folder, requests = script(), asked(200)
    # With one worker it is the address that asks for Ray.
    engine = opened(folder, replicas=replicas, address="auto")
    assert list(engine.generate(requests)) == alone(script(), requests)
    scores = list(engine.score(scored(90)))
    here = ScriptedEngine(TransformersSettings(batch_size=8), str(script())).score(scored(90))
    assert scores == list(here)
    assert list(engine.generate([])) == []
    opens = diary(folder, "open")
    assert len(opens) == len({entry["pid"] for entry in opens}) == replicas
    assert os.getpid() not in {entry["pid"] for entry in opens}
    assert all(int(entry["threads"]) >= 1 for entry in opens)
    where: dict[int, set[int]] = {}
    for entry in diary(folder, "end"):
        for name in entry["ids"]:
            if name.startswith("r"):
                where.setdefault(int(name[1:]) % 25, set()).add(entry["pid"])
    assert len(where) == 25
    assert all(len(pids) == 1 for pids in where.values()), "questions on one image went to several workers"


def test_a_caller_that_waits_is_not_run_ahead_of(opened: Opened, script: Script) -> None:
    folder = script()
    answers = opened(folder).generate(asked(3000, images=3000))
    next(answers)
    most = (4 * 2 + 1) * 8  # pieces ahead for each of two workers, and the one that was begun to be read

    def quiet() -> bool:
        before = len(diary(folder, "end"))
        time.sleep(0.5)
        return len(diary(folder, "end")) == before == len(diary(folder, "begin"))

    until(quiet)
    done = sum(len(entry["ids"]) for entry in diary(folder, "end"))
    assert 8 < done <= most
    answers.close()  # type: ignore[attr-defined]
    until(quiet)
    assert sum(len(entry["ids"]) for entry in diary(folder, "end")) <= most


@pytest.mark.parametrize("times", [1, 2])
def test_the_piece_of_a_killed_worker_is_done_by_another(times: int, opened: Opened, script: Script) -> None:
    folder, requests = script(fault="kill", at="r40", times=times, seconds=0.01), asked(200)
    engine = opened(folder)
    answers = list(engine.generate(requests))
    assert answers == alone(script(), requests)
    begun = [name for entry in diary(folder, "begin") for name in entry["ids"]]
    twice = {name for name in begun if begun.count(name) > 1}
    assert "r40" in twice and len(twice) <= 8, "more than the piece in work was done again"
    until(lambda: len(diary(folder, "open")) == 2 + times)


def test_workers_killed_from_outside_while_several_threads_ask(opened: Opened, script: Script) -> None:
    folder, requests = script(seconds=0.05), asked(240)
    engine = opened(folder, replicas=3)
    with ThreadPoolExecutor(3) as threads:
        parts = [threads.submit(lambda n=n: list(engine.generate(requests[n::3]))) for n in range(3)]
        until(lambda: len(diary(folder, "end")) > 4)
        os.kill(diary(folder, "begin")[-1]["pid"], signal.SIGKILL)
        answers = [part.result() for part in parts]
    expected = alone(script(), requests)
    assert answers == [expected[n::3] for n in range(3)]


def test_a_piece_that_kills_every_worker_is_named_and_the_rest_goes_on(opened: Opened, script: Script) -> None:
    folder, requests = script(fault="kill", at="r40", times=99), asked(60, images=60)
    engine = opened(folder)
    with pytest.raises(
        EngineError, match=r"3 workers were lost at work on the requests from r40 to r47; the last died"
    ):
        list(engine.generate(requests))
    assert list(engine.generate(requests[:40])) == alone(script(), requests[:40])


def test_a_worker_that_hangs_is_given_up(opened: Opened, script: Script) -> None:
    folder, requests = script(fault="stop", at="r12"), asked(60, images=60)
    answers = list(opened(folder, wait_s=10).generate(requests))
    assert answers == alone(script(), requests)
    stopped = next(entry["pid"] for entry in diary(folder, "begin") if "r12" in entry["ids"])
    until(lambda: not Path(f"/proc/{stopped}").exists())


def test_weights_reach_every_worker_and_those_that_come_later(opened: Opened, script: Script) -> None:
    folder = script(fault="kill", at="r9", seconds=0.02)
    engine, requests = opened(folder), asked(8 * 6, images=48)
    ones = torch.ones(3, dtype=torch.bfloat16)
    engine.update_weights([("a", ones), ("b", 2 * ones)])
    assert {each.text.split()[0] for each in engine.generate(requests)} == {"a=3,b=6"}  # one worker is new
    engine.update_weights([("a", 5 * ones), ("b", ones)])
    assert {each.text.split()[0] for each in engine.generate(requests[16:])} == {"a=15,b=3"}
    os.kill(diary(folder, "end")[-1]["pid"], signal.SIGKILL)
    assert {each.text.split()[0] for each in engine.generate(requests[16:])} == {"a=15,b=3"}
    other = script()
    engine.reopen(str(other))
    assert {each.text.split()[0] for each in engine.generate(requests)} == {"loaded"}
    assert len(diary(other, "open")) == 2
    engine.reopen(str(other))
    assert len(diary(other, "open")) == 4, "what was opened again may have changed"


def test_weights_of_every_type_travel_whole() -> None:
    tensors = {
        "w": torch.randn(3, 5, dtype=torch.bfloat16),
        "t": torch.randn(4, 2).t(),
        "s": torch.tensor(2.5, dtype=torch.float16),
    }
    back = dict(unpacked([packed(tensors.items())]))
    assert back.keys() == tensors.keys()
    assert all(back[name].dtype == value.dtype and torch.equal(back[name], value) for name, value in tensors.items())


def test_a_checkpoint_that_a_worker_does_not_see(tmp_path: Path) -> None:
    unseen = Worker(str(tmp_path)).open(TransformersSettings(), str(tmp_path / "model"), open_scripted)
    with pytest.raises(EngineError, match=rf"model: a worker, on machine {socket.gethostname()}, does not see this"):
        next(unseen)


def test_errors_of_the_engine_come_through(opened: Opened, script: Script) -> None:
    with pytest.raises(EngineError, match=r"^no such thing$"):
        opened(script(refuses="no such thing"))
    engine = opened(script())
    with pytest.raises(AttributeError):
        list(engine.generate([SimpleNamespace(id="x", image="i", messages=())]))  # type: ignore[list-item]
    assert len(list(engine.generate(asked(9)))) == 9
    with pytest.raises(EngineError, match=r"^no such thing$"):
        engine.reopen(str(script(refuses="no such thing")))
    with pytest.raises(EngineError, match=r"^no such thing$"):
        list(engine.generate(asked(9)))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        list(engine.generate(asked(9)))


def test_workers_that_die_while_they_load_are_no_endless_story(opened: Opened, script: Script) -> None:
    with pytest.raises(EngineError, match="3 workers one after the other were lost while they started; the last died"):
        opened(script(fault="kill while loading"))


def test_closing_ends_what_is_under_way(opened: Opened, script: Script) -> None:
    engine = opened(script(seconds=60))
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            list(engine.generate(asked(20)))
        except EngineError as error:
            failed.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(1)
    engine.close()
    thread.join(timeout=30)
    assert not thread.is_alive() and "closed" in str(failed[0])


def test_a_worker_with_other_versions_is_refused(
    opened: Opened, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "transformers-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 0.0.1\n")
    monkeypatch.setenv("PYTHONPATH", str(other.parent))
    folder = script()
    ours = versions()["transformers"]
    with pytest.raises(EngineError, match=f"other versions than this machine: transformers 0.0.1 and not {ours}; "):
        opened(folder)
    assert not diary(folder, "open"), "a model was loaded in vain"
    with pytest.raises(EngineError, match=r"engines' code none and not [0-9a-f]{8}"):
        check_versions({name: value for name, value in versions().items() if name != "engines' code"}, versions())


def test_more_workers_than_this_machine_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "import_ray", lambda: SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr("engines.settings.cores", lambda: 3)
    said = pytest.raises(EngineError, match=r"1000 workers .* may use 3 here; give engine\.replicas=3, or")
    with said, cluster.connected(TransformersSettings(replicas=1000)):
        pass


def test_more_workers_than_a_cluster_has_room_for(opened: Opened, script: Script) -> None:
    with pytest.raises(EngineError, match=f"9 workers take as many .* has {PROCESSORS}; give engine.replicas=8"):
        opened(script(), replicas=PROCESSORS + 1)
    gone = {"Alive": False, "Resources": {"GPU": 8.0, "CPU": 64.0}}
    there = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"GPU": 5.0, "CPU": 64.0}}, gone])
    with pytest.raises(EngineError, match=r"4 workers take 8 GPUs, there are 5; give engine.replicas=2"):
        cluster.options_of_worker(there, VllmSettings(replicas=4, tensor_parallel_size=2))
    assert cluster.options_of_worker(there, VllmSettings(replicas=2, tensor_parallel_size=2))["num_gpus"] == 2
    assert cluster.options_of_worker(there, TransformersSettings(replicas=5))["num_gpus"] == 1
    apart = SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"GPU": 3.0, "CPU": 16.0}}] * 2)
    with pytest.raises(EngineError, match=r"takes 4 GPUs of one machine, the largest has 3; give .*_size=3$"):
        cluster.options_of_worker(apart, VllmSettings(tensor_parallel_size=4))
    with pytest.raises(EngineError, match=r"take 2 GPUs of one machine each, and there is room for 2; .*replicas=2$"):
        cluster.options_of_worker(apart, VllmSettings(replicas=3, tensor_parallel_size=2))


def test_a_cluster_that_others_hold(opened: Opened, script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is asked of a worker that gets no place: the others do its work, and without any the wait has an end."""
    ray = cluster.import_ray()
    others = ray.remote(SimpleNamespace).options(num_cpus=PROCESSORS - 1).remote()
    try:
        until(lambda: ray.available_resources().get("CPU") == 1)
        folder, requests = script(), asked(40)
        engine = opened(folder, room_s=20)  # a busy machine takes more than 8 to start one
        assert list(engine.generate(requests)) == alone(script(), requests)
        assert len(diary(folder, "open")) == 1 and "the others go on without worker" in caplog.text
        expected = (
            r"Ray started no worker within 0\.5 s \(engine\.room_s\): each takes 1 processor core of one machine, "
            rf"and free on the whole cluster are 0 of {PROCESSORS} processor cores; wait for"
        )
        with pytest.raises(EngineError, match=expected):
            opened(script(), room_s=0.5)
    finally:
        ray.kill(others)


def test_an_address_where_nothing_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EngineError, match=f"engine.address: no Ray cluster answers at {closed} .*; start one by"):
        cluster.join(cluster.import_ray(), closed)
    for wrong in ("nonsense", "ray://host:10001", "host:", "host:65536"):
        assert unplaced(TransformersSettings(address=wrong)) == f"engine.address: {wrong} is no HOST:PORT, and not auto"
    for good in ("auto", "host:1", "[::1]:65535"):
        assert unplaced(TransformersSettings(address=good, replicas=1000)) is None


def test_an_address_where_something_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_JOIN_S", 0.2)
    endless = SimpleNamespace(init=lambda **settings: time.sleep(2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"what listens at {address} is no Ray cluster, or hangs"):
            cluster.join(endless, address)
