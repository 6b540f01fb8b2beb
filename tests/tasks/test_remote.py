"""Data at URLs: in memory, and on a server that speaks S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

from pipelines.sections import DataSettings
from tasks.problem import TaskError
from tasks.registry import check, columns, load
from tasks.remote import fetched, identity, is_url

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(5)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "trivium" / "data"


def lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_what_is_a_url() -> None:
    for url in ("s3://lab/a.jsonl", "memory://a", "simplecache::s3://lab/a", "https://host/a.csv"):
        assert is_url(url)
    for other in ("lab/a", "/data/a.jsonl", "C://data", "~/a", "a:b", 3, None):
        assert not is_url(other)


@pytest.mark.parametrize("protocol", ["memory", "s3"])
def test_a_table_at_a_url_is_read_like_a_local_one(protocol: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue("memory" if protocol == "memory" else "bucket")
    store.pipe_file("lab/sums.jsonl", lines(ROWS))
    source = f"{protocol}://lab/sums.jsonl"
    assert check("table", source=source) is None
    assert columns("table", source=source) == frozenset()
    found = load("table", source=source, skip=1, take=3).problems
    assert [(each.question, each.answer) for each in found] == [(r["question"], r["answer"]) for r in ROWS[1:4]]


def test_a_table_and_its_folder_of_images(bucket: Any, tmp_path: Path) -> None:
    for name in ("cat.png", "dog.png"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / name)
        bucket.put_file(str(tmp_path / name), f"lab/photos/deep/{name}")
    rows = [{"question": "What?", "answer": n, "image": f"deep/{n}.png"} for n in ("cat", "dog", "cow")]
    bucket.pipe_file("lab/animals.jsonl", lines(rows))
    found = load("table", source="s3://lab/animals.jsonl", images="s3://lab/photos")
    assert [problem.answer for problem in found.problems] == ["cat", "dog"]
    assert dict(found.dropped) == {"missing_image (file deep/cow.png of problem 2)": 1}
    pictures = load("images", folder="s3://lab/photos").pictures
    assert [picture.id for picture in pictures] == ["deep/cat.png", "deep/dog.png"]


def test_a_copy_is_made_once_and_anew_when_the_file_changes(
    memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe_file("/lab/sums.jsonl", lines(ROWS))
    first = fetched("memory://lab/sums.jsonl")
    reads: list[str] = []
    whole = type(memory).get

    def get(self: Any, path: str, *rest: Any, **more: Any) -> Any:
        reads.append(path)
        return whole(self, path, *rest, **more)

    monkeypatch.setattr(type(memory), "get", get)
    assert fetched("memory://lab/sums.jsonl") == first and not reads
    before = DataSettings(task="table", source="memory://lab/sums.jsonl").files()
    memory.pipe_file("/lab/sums.jsonl", lines(ROWS[:4]))
    again = fetched("memory://lab/sums.jsonl")
    assert again != first and again.read_bytes() == lines(ROWS[:4]) and len(reads) == 1
    assert DataSettings(task="table", source="memory://lab/sums.jsonl").files() != before
    assert not list(cache.glob(".partial*"))


def test_a_copy_that_was_cut_off_is_no_copy(memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe_file("/lab/sums.jsonl", lines(ROWS))

    def cut(self: Any, path: str, target: str, **more: Any) -> None:
        Path(target).write_bytes(lines(ROWS)[:20])
        raise OSError("the line went down")

    with monkeypatch.context() as patched:
        patched.setattr(type(memory), "get", cut)
        with pytest.raises(TaskError, match=r"memory://lab/sums.jsonl: cannot be read \(the line went down\)"):
            fetched("memory://lab/sums.jsonl")
    assert fetched("memory://lab/sums.jsonl").read_bytes() == lines(ROWS)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("memory://lab/none.jsonl", "memory://lab/none.jsonl: nothing is there"),
        ("nowhere://lab/a.jsonl", "nowhere://lab/a.jsonl: cannot be read (Protocol not known: nowhere)"),
        (
            "memory://lab/broken.jsonl",
            "memory://lab/broken.jsonl: no column 'solution' for answer; it has question, answer",
        ),
    ],
)
def test_mistakes_are_one_line_that_names_the_url(memory: Any, source: str, said: str) -> None:
    memory.pipe_file("/lab/broken.jsonl", lines(ROWS))
    with pytest.raises(TaskError) as error:
        check("table", source=source, columns={"answer": "solution"})
    assert str(error.value) == said


def test_a_store_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(TaskError, match=r"s3://lab/a\.jsonl: cannot be read") as error:
        identity("s3://lab/a.jsonl")
    assert "\n" not in str(error.value)
    fsspec.filesystem("s3").clear_instance_cache()
