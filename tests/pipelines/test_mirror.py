"""Runs that are kept at a URL: killed drivers, other machines, broken lines."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import RunError
from pipelines.manifest import ATTEMPT_FILE, MANIFEST_FILE
from pipelines.remote.claim import Claim
from pipelines.remote.copies import mirror_of, working_copy
from pipelines.remote.mirror import Mirror
from pipelines.remote.place import Place
from pipelines.store import list_runs
from tests.pipelines.test_survival import CHILD, wait_for, write_recipe

Take = Callable[[Path], dict[str, Any]]


def trivium(cache: Path, *arguments: object, interval: float = 0.2) -> subprocess.Popen[str]:
    """The command on a machine whose working copies are in `cache`, with an eager mirror."""
    eager = (
        f"import pipelines.remote.copies as c; c.INTERVAL = {interval}; c.Mirror.__init__.__defaults__ = ({interval},)"
    )
    start = f"import sys, runpy; sys.argv = ['child.py', 'trivium', *{[str(each) for each in arguments]!r}]"
    path = f"sys.path.insert(0, {str(Path.cwd())!r})"
    code = f"{start}; {path}; {eager}; runpy.run_path({str(CHILD)!r}, run_name='__main__')"
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"XDG_CACHE_HOME": str(cache)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def finish(child: subprocess.Popen[str]) -> str:
    text, _ = child.communicate(timeout=120)
    assert child.returncode == 0, text
    return text


def copy_in(cache: Path) -> Path:
    return next(cache.glob("trivium/runs/*/toy"))


def test_another_machine_goes_on_where_a_killed_driver_was(bucket: Any, snapshot: Take, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    recipe = write_recipe(tmp_path, diary=str(diary), seconds=1.0)
    finish(trivium(tmp_path / "whole", "run", recipe, "--runs", tmp_path / "undisturbed"))
    chunks = Counter(diary.read_text().splitlines())
    diary.unlink()

    command = ("run", recipe, "--runs", "s3://lab/runs")
    first = trivium(tmp_path / "one", *command)
    wait_for(lambda: "lab/runs/toy/grow/measured/000000.jsonl" in there(bucket), seconds=120)
    first.send_signal(signal.SIGKILL)
    first.wait()
    shutil.rmtree(tmp_path / "one")  # the machine is gone
    assert "died; going on with what it left" in finish(trivium(tmp_path / "two", *command))
    done = Counter(diary.read_text().splitlines())
    assert done.keys() == chunks.keys() and sum(done.values()) <= sum(chunks.values()) + 2
    assert done["grow 0"] == 1, "a chunk that was up was done again"
    expected = snapshot(tmp_path / "undisturbed" / "toy")
    assert snapshot(copy_in(tmp_path / "two")) == expected

    diary.unlink()
    text = finish(trivium(tmp_path / "three", *command))
    assert text.count("up to date") == 4 and not diary.exists()
    assert snapshot(copy_in(tmp_path / "three")) == expected
    assert "grow" in finish(trivium(tmp_path / "four", "runs", "list", "--runs", "s3://lab/runs"))
    assert not list(tmp_path.glob("four/trivium/runs/*/toy")), "a listing brought a run down"
    assert not [name for name in there(bucket) if ".partial" in name or name.endswith("lock")]


def there(bucket: Any) -> list[str]:
    bucket.invalidate_cache()
    found: list[str] = bucket.find("lab/runs")
    return found


def test_a_second_driver_is_refused(bucket: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, seconds=1.0)
    command = ("run", recipe, "--runs", "s3://lab/runs")
    # A busy machine may let a driver be silent for longer than three of the others' short intervals.
    first = trivium(tmp_path / "one", *command, interval=1.0)
    wait_for(lambda: "lab/runs/toy/lock" in there(bucket), seconds=120)
    second = trivium(tmp_path / "two", *command, interval=1.0)
    text, _ = second.communicate(timeout=60)
    assert second.returncode == 2 and "s3://lab/runs/toy is in use by process" in text, text
    finish(first)


def stage(directory: Path, rows: str, started: str = "2026-01-01T00:00:00+00:00") -> None:
    """A finished stage of one file."""
    from pipelines import machine
    from pipelines.manifest import Manifest, output_files

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "rows.json").write_text(rows)
    Manifest(
        stage=directory.name, kind="sow", digest="0", source={}, inputs={}, seed=0, **machine.provenance(),
        started=started, seconds=1.0, attempts=1, peak_memory_mib=1, rows_in=None, rows_out=1, dropped={}, numbers={},
        files=output_files(directory),
    ).write(directory)  # fmt: skip


def test_a_manifest_goes_up_last_and_only_when_all_is_up(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(tmp_path / "toy/sow", "[1]")
    mirror = Mirror("memory://runs/toy", tmp_path / "toy")
    whole = type(memory).put_file
    puts: list[str] = []

    def put(self: Any, source: str, target: str, **more: Any) -> None:
        puts.append(target.rpartition("/")[2])
        if breaks == puts[-1]:
            raise OSError("the line went down")
        whole(self, source, target, **more)

    monkeypatch.setattr(type(memory), "put_file", put)
    breaks = "rows.json"
    with pytest.raises(RunError, match=r"memory://runs/toy: does not answer as it should \(the line went down\)"):
        mirror.push(tmp_path / "toy/sow")
    assert not memory.exists("/runs/toy/sow/manifest.json")
    breaks = ""
    mirror.push(tmp_path / "toy/sow")
    assert puts == ["rows.json", "rows.json", "manifest.json"]

    # Changed outputs: the old manifest goes first, so that it never stands beside new files.
    (tmp_path / "toy/sow/rows.json").unlink()
    stage(tmp_path / "toy/sow", "[1, 2]", "2026-01-02T00:00:00+00:00")
    breaks = "rows.json"
    with pytest.raises(RunError):
        mirror.push(tmp_path / "toy/sow")
    assert not memory.exists("/runs/toy/sow/manifest.json")


def test_what_comes_down_is_checked_and_the_newer_one_stays(memory: Any, tmp_path: Path) -> None:
    stage(tmp_path / "here/toy/sow", "[1]")
    Mirror("memory://runs/toy", tmp_path / "here/toy").push_all()
    away = Mirror("memory://runs/toy", tmp_path / "away/toy")
    away.pull()
    assert (tmp_path / "away/toy/sow/rows.json").read_text() == "[1]"
    stage(tmp_path / "away/toy/sow", "[1, 2]", "2026-01-02T00:00:00+00:00")
    away.pull()
    assert (tmp_path / "away/toy/sow/rows.json").read_text() == "[1, 2]", "older outputs came over newer ones"
    away.push_all()
    here = Mirror("memory://runs/toy", tmp_path / "here/toy")
    here.pull()
    assert (tmp_path / "here/toy/sow/rows.json").read_text() == "[1, 2]"

    memory.pipe_file("/runs/toy/sow/rows.json", b"[1, 3]")
    third = Mirror("memory://runs/toy", tmp_path / "third/toy")
    with pytest.raises(RunError, match="is not the file that its manifest names"):
        third.pull()
    assert not (tmp_path / "third/toy/sow" / MANIFEST_FILE).exists()


def test_a_folder_elsewhere_is_a_mirror_too(tmp_path: Path) -> None:
    stage(tmp_path / "here/toy/sow", "[1]")
    mirror = Mirror(f"file://{tmp_path}/shared/toy", tmp_path / "here/toy")
    mirror.push_all()
    assert sorted(p.name for p in (tmp_path / "shared/toy/sow").iterdir()) == ["manifest.json", "rows.json"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9/runs", "a run cannot be kept there, since a manifest could be read half written"),
        # Before anything is connected to, which these stores do at once: nothing listens there.
        ("ftp://127.0.0.1:9/runs", "a run cannot be kept there, since a manifest could be read half written"),
        ("simplecache::ftp://127.0.0.1:9/runs", "a run cannot be kept there, since a manifest"),
        ("nowhere://runs", "does not answer as it should (Protocol not known: nowhere)"),
    ],
)
def test_places_that_cannot_keep_a_run(url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RunError) as error:
        mirror_of(working_copy(url) / "toy")
    assert said in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(RunError, match=re.escape(said)):
        list_runs(working_copy(url))


def test_signs_of_life(memory: Any, tmp_path: Path) -> None:
    """A driver on another machine that is silent for long is dead; one that signs anew is not."""
    old = {"process": 1, "born": 0, "host": "another", "nonce": "a", "time": 0}
    said: list[str] = []
    memory.pipe_file("/runs/toy/lock", json.dumps(old).encode())
    mirror = Mirror("memory://runs/toy", tmp_path / "toy", interval=0.05)
    with mirror.held(said.append, pytest.fail):
        assert said[-1].endswith("process 1 on another has died; going on with what it left")
        before = json.loads(memory.cat_file("/runs/toy/lock"))
        time.sleep(0.3)
        assert json.loads(memory.cat_file("/runs/toy/lock"))["time"] > before["time"]
    assert not memory.exists("/runs/toy/lock")


def test_why_a_run_ended_is_not_hidden_by_its_store(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, said = tmp_path / "toy", list[str]()
    mirror = Mirror("memory://runs/toy", root, interval=0.05)

    def down(*_: Any) -> None:
        raise OSError("no route to the store")

    with pytest.raises(RunError, match="a reward raised"), mirror.held(said.append, pytest.fail):
        stage(root / "grow", "rows")
        monkeypatch.setattr(type(memory), "put_file", down)
        raise RunError("a reward raised")
    assert len(said) == 1 and "no route to the store" in said[0] and str(root) in said[0]
    monkeypatch.undo()
    with mirror.held(said.append, pytest.fail):
        pass
    assert memory.cat_file("/runs/toy/grow/rows.json") == b"rows"


def begin(directory: Path, digest: str, **files: str) -> None:
    """A stage in work, in that attempt, with these files."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ATTEMPT_FILE).write_text(json.dumps({"digest": digest, "inputs": {}, "attempts": 1}))
    for name, text in files.items():
        (directory / name).write_text(text)


def test_files_of_another_attempt_never_come_back(memory: Any, tmp_path: Path) -> None:
    stage(tmp_path / "one/toy/tune", "old")
    one = Mirror("memory://runs/toy", tmp_path / "one/toy")
    one.push_all()
    two = Mirror("memory://runs/toy", tmp_path / "two/toy")
    two.pull()

    # The stage is due again with other settings: its outputs go here, and then there.
    directory = tmp_path / "one/toy/tune"
    one.begin(directory)
    shutil.rmtree(directory)
    begin(directory, "other")
    one.push_loose()
    assert memory.exists("/runs/toy/tune/rows.json") and not memory.exists("/runs/toy/tune/attempt.json"), (
        "the record of the new attempt is beside files of the old one"
    )
    one.begun(directory)
    assert [Path(name).name for name in memory.find("/runs/toy")] == [ATTEMPT_FILE]

    for away in (Mirror("memory://runs/toy", tmp_path / "three/toy"), two):  # a new machine, and one that has the old
        away.pull()
        assert sorted(path.name for path in (away.local / "tune").iterdir()) == [ATTEMPT_FILE]

    # One that only looks takes nothing of a stage in work.
    (directory / "000000.jsonl").write_text("row")
    one.push_loose()
    reader = Mirror("memory://runs/toy", tmp_path / "reader/toy")
    reader.pull(to_read=True)
    assert not (reader.local / "tune").exists()
    two.pull()
    assert (two.local / "tune/000000.jsonl").read_text() == "row"
    # What that attempt has come to here is not undone by its traces there.
    stage(directory, "new")
    manifest = json.loads((directory / MANIFEST_FILE).read_text())
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest | {"digest": "other"}))
    one.pull()
    assert (directory / MANIFEST_FILE).exists() and (directory / "rows.json").read_text() == "new"


def test_a_save_goes_up_when_it_is_whole_and_is_marked_last(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror("memory://runs/toy", tmp_path / "toy")
    begin(tmp_path / "toy/tune", "a")
    save = tmp_path / "toy/tune/trainer/checkpoint-2"
    save.mkdir(parents=True)
    (save / "model.safetensors").write_text("weights")
    (save / "zzz.pt").write_text("state")
    mirror.push_loose()
    assert not memory.exists("/runs/toy/tune/trainer")
    (save / "complete").touch()
    order: list[str] = []
    put = type(memory).put_file

    def noted(self: Any, source: str, target: str, **more: Any) -> None:
        order.append(Path(target).name)
        put(self, source, target, **more)

    monkeypatch.setattr(type(memory), "put_file", noted)
    mirror.push_loose()
    assert order == ["model.safetensors", "zzz.pt", "complete"]
    shutil.rmtree(save)  # as the trainer does with old ones
    mirror.push_loose()
    assert not memory.find("/runs/toy/tune/trainer"), "a save that is gone here stays there"


def test_a_long_upload_is_no_silence(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror("memory://runs/toy", tmp_path / "toy", interval=0.05)
    put = type(memory).put_file

    def slow(self: Any, source: str, target: str, **more: Any) -> None:
        time.sleep(1)
        put(self, source, target, **more)

    monkeypatch.setattr(type(memory), "put_file", slow)
    other = Claim(Place("memory://runs/toy"), 0.1)
    with mirror.held(lambda line: None, pytest.fail):
        stage(tmp_path / "toy/tune", "rows")
        pushing = threading.Thread(target=mirror.push_all)
        pushing.start()
        time.sleep(0.1)
        with pytest.raises(RunError, match="in use by"), other.held(lambda line: None, pytest.fail):
            pass
        pushing.join()


def test_of_two_drivers_one_gives_way(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both look and see nobody; the second signs after the first has made sure of itself."""
    place, lost = Place("memory://runs/toy"), threading.Event()
    first, second = Claim(place, 0.1), Claim(place, 0.1)
    with first.held(lambda line: None, lost.set):
        monkeypatch.setattr(Claim, "_wait_for_silence", lambda self, say: False)
        began = pytest.raises(RunError, match="another driver began at the same time")  # as the store will not create
        with began, second.held(lambda line: None, pytest.fail):
            pass
        monkeypatch.setattr(Claim, "_wait_for_silence", lambda self, say: True)  # took the first for dead
        with second.held(lambda line: None, pytest.fail):
            assert lost.wait(5) and first.lost
    assert not memory.exists("/runs/toy/lock")


def test_a_driver_that_lost_its_run_stops_and_puts_nothing_up(memory: Any, tmp_path: Path) -> None:
    said: list[str] = []
    stopped = threading.Event()
    mirror = Mirror("memory://runs/toy", tmp_path / "toy", interval=0.05)
    with mirror.held(said.append, stopped.set):
        memory.pipe_file(
            "/runs/toy/lock", json.dumps({"process": 1, "born": 0, "host": "b", "nonce": "b", "time": 0}).encode()
        )
        assert stopped.wait(5)
        stage(tmp_path / "toy/sow", "[1]")
    assert "another driver has taken this run over" in said[0]
    assert [Path(name).name for name in memory.find("/runs/toy")] == ["lock"], "the other one's is there, and no more"


def test_a_run_goes_to_a_folder_elsewhere(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    url = f"file://{tmp_path}/shared/runs"
    finish(trivium(tmp_path / "one", "run", recipe, "--runs", url))
    names = {path.name for path in (tmp_path / "shared/runs/toy").iterdir()}
    assert "recipe.yaml" in names and not names & {"lock", "live.json"}
    assert finish(trivium(tmp_path / "two", "run", recipe, "--runs", url)).count("up to date") == 4


def test_metrics_go_up_before_the_chunks_they_speak_of(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror("memory://runs/toy", tmp_path / "toy")
    begin(tmp_path / "toy/grow", "a", **{"000000.jsonl": "row"})
    (tmp_path / "toy/metrics.jsonl").write_text("record\n")
    order: list[str] = []
    monkeypatch.setattr(type(memory), "put_file", lambda self, source, target, **more: order.append(Path(target).name))
    mirror.push_loose()
    assert order == ["metrics.jsonl", "000000.jsonl", ATTEMPT_FILE]


def test_who_looks_brings_no_checkpoint_and_who_goes_on_does(memory: Any, tmp_path: Path) -> None:
    directory = tmp_path / "one/toy/tune"
    (directory / "checkpoint").mkdir(parents=True)
    (directory / "checkpoint/model.safetensors").write_text("weights")
    stage(directory, "[1]")
    Mirror("memory://runs/toy", tmp_path / "one/toy").push_all()

    reader = Mirror("memory://runs/toy", tmp_path / "two/toy")
    reader.pull(to_read=True, checkpoints=False)
    names = ["manifest.json", "rows.json"]
    assert sorted(path.name for path in (tmp_path / "two/toy/tune").iterdir()) == names
    # What is made of it here goes up, and takes nothing away there.
    stage(tmp_path / "two/toy/rescore", "[2]")
    reader.push_all()
    assert memory.cat_file("/runs/toy/tune/checkpoint/model.safetensors") == b"weights"
    assert memory.cat_file("/runs/toy/rescore/rows.json") == b"[2]"
    Mirror("memory://runs/toy", tmp_path / "two/toy").pull()
    assert (tmp_path / "two/toy/tune/checkpoint/model.safetensors").read_text() == "weights"


def test_a_manifest_without_its_file_is_told(memory: Any, tmp_path: Path) -> None:
    stage(tmp_path / "one/toy/sow", "[1]")
    Mirror("memory://runs/toy", tmp_path / "one/toy").push_all()
    memory.rm_file("/runs/toy/sow/rows.json")
    with pytest.raises(RunError, match=r"sow/rows\.json: is missing, though a manifest names it"):
        Mirror("memory://runs/toy", tmp_path / "two/toy").pull()


def test_a_stage_of_no_files_comes_down(memory: Any, tmp_path: Path) -> None:
    stage(tmp_path / "one/toy/sow", "[1]")
    manifest = json.loads((tmp_path / "one/toy/sow" / MANIFEST_FILE).read_text())
    memory.pipe_file("/runs/toy/sow/manifest.json", json.dumps(manifest | {"files": {}}).encode())
    Mirror("memory://runs/toy", tmp_path / "two/toy").pull()
    assert (tmp_path / "two/toy/sow" / MANIFEST_FILE).is_file()


def test_the_heartbeat_does_not_wait_for_an_upload(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = Mirror("memory://runs/toy", tmp_path / "toy", interval=0.06)
    put, up = type(memory).put_file, threading.Event()

    def held_up(self: Any, source: str, target: str, **more: Any) -> None:
        if target.endswith("weights"):
            up.wait(30)
        put(self, source, target, **more)

    monkeypatch.setattr(type(memory), "put_file", held_up)
    with mirror.held(lambda line: None, pytest.fail):
        (tmp_path / "toy").mkdir()
        (tmp_path / "toy/weights").write_text("many")
        for beat in ("1", "22"):
            (tmp_path / "toy/live.json").write_text(beat)
            wait_for(
                lambda beat=beat: (
                    memory.exists("/runs/toy/live.json") and memory.cat("/runs/toy/live.json") == beat.encode()
                )
            )
        assert not memory.exists("/runs/toy/weights")
        up.set()


def test_watching_a_run_at_a_url_fetches(tmp_path: Path) -> None:
    recipe, url = write_recipe(tmp_path, seconds=1.0), f"file://{tmp_path}/shared/runs"
    running = trivium(tmp_path / "one", "run", recipe, "--runs", url)
    wait_for((tmp_path / "shared/runs/toy/live.json").exists, seconds=120)
    text = finish(trivium(tmp_path / "two", "runs", "show", "toy", "--watch", "--runs", url))
    finish(running)
    assert "running: " in text, text
    assert "tally" in text.rpartition("running: ")[2], "it ended before the run did"
