"""The newest pairs, triads and answers of a run, from the shards as they arrive."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.manifest import ATTEMPT_FILE
from pipelines.report.format import thumbnail
from pipelines.shards import KEY_FILE
from pipelines.stages.filter import SCORE_PREFIX, TRIADS_FILE
from pipelines.stages.generate import PAIRS_FILE

ROWS = 12
"""Rows of a stage that are shown."""
STAGES = 3
"""Stages that are shown, those that wrote last."""
_TEXT = 2000
"""Characters of one text that are shown."""

Row = Mapping[str, Any]


def newest(directory: Path) -> list[dict[str, Any]]:
    """The last rows of the stages that wrote last, the newest first: `{"stage", "what", "items"}`.

    An item has `id`, `image` (a data URI, or None), `lines` ([name, text] each) and `verdict`. The texts are what a
    model wrote: whoever shows them must not take them for anything but text.
    """
    written = [(path.stat().st_mtime, path) for path in map(_last_shard, directory.rglob(KEY_FILE)) if path is not None]
    found: dict[str, dict[str, Any]] = {}
    for _, path in sorted(written, reverse=True):
        stage = _stage_of(directory, path)
        name = str(stage.relative_to(directory))
        if name in found or len(found) == STAGES:
            continue
        rows = _last_rows(path.parent)
        if rows and (items := _items(stage, rows)):
            found[name] = {"stage": name, "what": items[0].pop("what"), "items": items}
            for each in items[1:]:
                del each["what"]
    return list(found.values())


def _last_shard(key: Path) -> Path | None:
    return max(key.parent.glob("[0-9]*.jsonl"), default=None)


def _stage_of(directory: Path, path: Path) -> Path:
    return next(each for each in path.parents if (each / ATTEMPT_FILE).is_file() or each.parent == directory)


def _last_rows(folder: Path) -> list[dict[str, Any]]:
    """The last first."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("[0-9]*.jsonl"), reverse=True):
        found += [json.loads(line) for line in reversed(path.read_text(encoding="utf-8").splitlines())]
        if len(found) >= ROWS:
            break
    return found[:ROWS]


def _items(stage: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    first = rows[0]
    if "outcome" in first:
        return [_answer(row) for row in rows]
    if "rebuilt_question" in first:
        return [_triad(row) for row in _whole_triads(stage, rows)]
    return [_pair(row) for row in rows] if "raw" in first else []


def _answer(row: Row) -> dict[str, Any]:
    asked = [(turn["role"], turn["content"]) for turn in row.get("prompt", ())]
    lines = [*asked, ("answered", row["completion"]), ("expected", row.get("gold"))]
    return _item("answers", row["problem_id"], row.get("image"), lines, row["outcome"])


def _pair(row: Row) -> dict[str, Any]:
    lines = [("asked", row["question"] or None), ("answered", row["answer"] or None)]
    if row["reason"] is not None:
        lines.append(("written", row["raw"]))
    return _item("pairs", row["id"], row["image"], lines, row["reason"])


def _triad(row: Row) -> dict[str, Any]:
    names = {
        "asked": "question", "answered": "answer", "question rebuilt": "rebuilt_question",
        "answer rebuilt": "rebuilt_answer",
    }  # fmt: skip
    lines = [(name, row.get(key)) for name, key in names.items()]
    scores = ((key.removeprefix(SCORE_PREFIX), value) for key, value in row.items() if key.startswith(SCORE_PREFIX))
    lines += [(name, f"{value:.2f}") for name, value in scores if value is not None]
    verdict = None if "kept" not in row else "kept" if row["kept"] else row["reason"]
    return _item("triads", row["id"], row.get("image"), lines, verdict)


def _whole_triads(stage: Path, rows: Sequence[Row]) -> list[Row]:
    """The measured rows with the pairs that they are of; with scores once the stage has selected."""
    import pyarrow.parquet as parquet

    inputs = json.loads((stage / ATTEMPT_FILE).read_text(encoding="utf-8"))["inputs"]
    places = [stage / TRIADS_FILE, *(stage.parent / Path(name).name / PAIRS_FILE for name in inputs)]
    place = next((path for path in places if path.is_file()), None)
    if place is None:
        return list(rows)
    known = parquet.read_table(place, filters=[("id", "in", [row["id"] for row in rows])]).to_pylist()
    of = {row["id"]: row for row in known}
    return [{**row, **of.get(row["id"], {})} for row in rows]


def _item(
    what: str, name: str, image: str | None, lines: Iterable[tuple[str, str | None]], verdict: str | None
) -> dict[str, Any]:
    shown = [[key, text if len(text) <= _TEXT else text[:_TEXT] + " …"] for key, text in lines if text is not None]
    return {"what": what, "id": name, "image": _picture(image), "lines": shown, "verdict": verdict}


@lru_cache(maxsize=256)
def _picture(path: str | None) -> str | None:
    return thumbnail(path)
