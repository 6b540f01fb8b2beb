"""Rows kept chunk by chunk, files whole or absent, metrics tidied."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import files
from pipelines.errors import Interrupted, RunError
from pipelines.files import PARTIAL, sweep, whole, write_text
from pipelines.metrics import Metrics
from pipelines.shards import Shards
from pipelines.stop import Stop
from pipelines.turns import Turns, TurnTaking


def square(chunk: Sequence[int]) -> list[dict[str, int]]:
    return [{"n": n, "square": n * n} for n in chunk]


@settings(deadline=None, max_examples=40)  # time is not what is tested, and fsync waits for a busy disk
@given(count=st.integers(0, 30), size=st.integers(1, 12), lost=st.sets(st.integers(0, 30)))
def test_rows_come_in_order_whatever_was_lost(
    tmp_path_factory: pytest.TempPathFactory, count: int, size: int, lost: set[int]
) -> None:
    directory = tmp_path_factory.mktemp("shards") / "s"
    shards = Shards(directory, {"a": (1, 2)})
    items = range(count)
    shards.run(items, size, square)
    paths = sorted(directory.glob("*.jsonl"))
    assert len(paths) == -(-count // size)
    gone = [path for number, path in enumerate(paths) if number in lost]
    for path in gone:
        path.unlink()
    assert shards.complete == (not gone)
    calls: list[int] = []
    Shards(directory, {"a": [1, 2]}).run(items, size, lambda chunk: calls.extend(chunk) or square(chunk))  # type: ignore[func-returns-value]
    assert sorted(calls) == [n for n in items if n // size in lost]
    assert list(shards.rows()) == square(items)


@pytest.mark.parametrize(("key", "count", "size"), [({"a": 2}, 10, 4), ({"a": 1}, 11, 4), ({"a": 1}, 10, 5)])
def test_another_key_count_or_size_starts_anew(tmp_path: Path, key: dict[str, int], count: int, size: int) -> None:
    Shards(tmp_path / "s", {"a": 1}).run(range(10), 4, square)
    changed = Shards(tmp_path / "s", key)
    calls = itertools.count()
    changed.run(range(count), size, lambda chunk: [{"call": next(calls)}])
    assert len(list(changed.rows())) == -(-count // size)
    assert all("call" in row for row in changed.rows())


def test_a_failed_chunk_stays_owed(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "s", {})

    def fail_late(chunk: Sequence[int]) -> Any:
        yield {"n": chunk[0]}
        if 4 in chunk:
            raise ConnectionError("the server went away")

    with pytest.raises(ConnectionError):
        shards.run(range(8), 2, fail_late)
    assert len(list((tmp_path / "s").glob("*.jsonl"))) == 2
    with pytest.raises(RunError, match="run the stage again"):
        list(shards.rows())


def test_stop_is_heard_between_chunks_and_finished_shards_need_none(tmp_path: Path) -> None:
    stop = Stop()
    shards = Shards(tmp_path / "s", {}, stop)

    def work(chunk: Sequence[int]) -> list[dict[str, int]]:
        stop.requested = 2 in chunk
        return square(chunk)

    with pytest.raises(Interrupted, match="4 of 8"):
        shards.run(range(8), 2, work)
    shards = Shards(tmp_path / "s", {})
    told: dict[str, list[int]] = {"skip": [], "advance": []}
    bar = SimpleNamespace(skip=told["skip"].append, advance=told["advance"].append)
    shards.run(range(8), 2, square, bar)
    assert told == {"skip": [2, 2], "advance": [2, 2]}
    stop.requested = True
    Shards(tmp_path / "s", {}, stop).run(range(8), 2, square)


def test_lines_that_are_no_lines(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "s", {})
    texts = ["a\u2028b", "c\r\nd", "\x85", "\ud800".encode("utf-8", "replace").decode(), ""]
    shards.run(texts, 2, lambda chunk: [{"text": text} for text in chunk])
    assert [row["text"] for row in shards.rows()] == texts


def test_whole_replaces_files_and_directories_or_leaves_them(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    for content in ("first", "second"):
        with whole(target) as path:
            path.mkdir()
            (path / content).write_text(content)
        assert [each.name for each in target.iterdir()] == [content]
    with pytest.raises(ZeroDivisionError), whole(target) as path:
        path.mkdir()
        raise ZeroDivisionError
    assert [each.name for each in tmp_path.rglob("*")] == ["checkpoint", "second"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a", "old")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "flush", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_sweep_takes_only_what_was_partial(tmp_path: Path) -> None:
    (tmp_path / "deep" / f"{PARTIAL}checkpoint" / "inner").mkdir(parents=True)
    (tmp_path / "deep" / f"{PARTIAL}x").write_text("")
    (tmp_path / "deep" / "kept").write_text("")
    sweep(tmp_path)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["kept"]


def test_metrics_keep_the_last_word_on_a_step(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.append("tune", {"step": 1, "loss": 3.0})
    metrics.append("tune", {"step": 2, "loss": 2.0})
    metrics.append("other", {"step": 2, "loss": 9.0})
    metrics.append("tune", {"note": "saved"})
    metrics.append("tune", {"step": 2, "loss": 1.5})
    metrics.append("tune", {"note": "saved"})
    with metrics.path.open("a") as file:
        file.write('{"stage": "tune", "st')
    metrics.settle("tune")
    found = [{key: value for key, value in each.items() if key != "time"} for each in metrics.read()]
    assert found == [
        {"stage": "tune", "step": 1, "loss": 3.0},
        {"stage": "tune", "step": 2, "loss": 1.5},
        {"stage": "other", "step": 2, "loss": 9.0},
        {"stage": "tune", "note": "saved"},
    ]
    assert all(json.loads(line) for line in metrics.path.read_text().splitlines())
    metrics.replace("tune")
    assert [each["stage"] for each in metrics.read()] == ["other"]


def test_appending_after_an_unfinished_line(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.append("tune", {"step": 1})
    with metrics.path.open("a") as file:
        file.write('{"stage": "tu')
    Metrics(metrics.path).append("tune", {"step": 2})
    assert [each["step"] for each in metrics.read()] == [1, 2]


class Slow:
    """Stands for an engine of several workers: it counts how many ask at once."""

    def __init__(self) -> None:
        self.asking = self.most = 0
        self.lock = threading.Lock()

    def generate(self, requests: Sequence[int]) -> Iterator[int]:
        with self.lock:
            self.asking += 1
            self.most = max(self.most, self.asking)
        time.sleep(0.02)
        with self.lock:
            self.asking -= 1
        yield from requests


def test_chunks_at_once_take_turns_but_for_the_engine(tmp_path: Path) -> None:
    turns, slow, inside = Turns(4), Slow(), []
    engine = TurnTaking(slow, turns)  # type: ignore[arg-type]

    def work(chunk: Sequence[int]) -> Iterator[dict[str, int]]:
        for _ in range(3):
            inside.append("in")
            time.sleep(0.002)
            inside.append("out")
            found = list(engine.generate(chunk))  # type: ignore[arg-type]
        yield from square(found)  # type: ignore[arg-type]

    seen: list[int] = []
    Shards(tmp_path / "one", {"a": 1}).run(range(50), 4, square)
    shards = Shards(tmp_path / "many", {"a": 1}, turns=turns)
    shards.run(range(50), 4, work, SimpleNamespace(advance=seen.append))
    assert 1 < slow.most <= 4
    assert inside == ["in", "out"] * (len(inside) // 2)
    assert sum(seen) == 50 and list(shards.rows()) == square(range(50))
    assert {p.name: p.read_bytes() for p in (tmp_path / "one").iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "many").iterdir()
    }
    shards.run(range(50), 4, lambda chunk: pytest.fail("done before"))


def test_what_fails_among_chunks_at_once_is_owed_and_said(tmp_path: Path) -> None:
    def work(chunk: Sequence[int]) -> list[dict[str, int]]:
        if chunk[0] == 8:
            raise RunError("this one")
        return square(chunk)

    shards = Shards(tmp_path / "s", {}, turns=Turns(3))
    with pytest.raises(RunError, match="this one"):
        shards.run(range(40), 4, work)
    assert not (tmp_path / "s" / "000002.jsonl").exists() and (tmp_path / "s" / "000000.jsonl").exists()
    shards.run(range(40), 4, square)
    assert list(shards.rows()) == square(range(40))


def test_a_stop_lets_the_chunks_in_work_end(tmp_path: Path) -> None:
    stop = Stop()

    def work(chunk: Sequence[int]) -> list[dict[str, int]]:
        stop.requested = True
        return square(chunk)

    shards = Shards(tmp_path / "s", {}, stop, Turns(3))
    with pytest.raises(Interrupted, match=r"of 40 rows are kept"):
        shards.run(range(40), 4, work)
    kept = len(list((tmp_path / "s").glob("0*.jsonl")))
    assert 1 <= kept <= 3
    stop.requested = False
    shards.run(range(40), 4, square)
    assert list(shards.rows()) == square(range(40))
