"""The run's record of numbers over time: `metrics.jsonl`, one JSON object a line."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.files import write_text

METRICS_FILE = "metrics.jsonl"


class Metrics:
    """Appends to, and tidies, one `metrics.jsonl`.

    A resumed stage logs the steps of its unfinished batch again. `settle` keeps the last word on each step, so that
    the file ends like that of an undisturbed run but for times.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mended = False

    def append(self, stage: str, record: Mapping[str, Any]) -> None:
        """Adds one record, with the stage's name and the time of day (seconds since 1970)."""
        line = json.dumps({"stage": stage, **record, "time": round(time.time(), 3)}, ensure_ascii=False) + "\n"
        if not self._mended:
            self.mend()
        # One write of one line: a reader, or a killed writer, meets at most one unfinished line, the last.
        with self.path.open("ab", buffering=0) as file:
            file.write(line.encode())

    def of(self, stage: str) -> list[dict[str, Any]]:
        """What a stage has logged."""
        return [record for record in self.read() if record["stage"] == stage]

    def replace(self, stage: str, records: Sequence[dict[str, Any]] = ()) -> None:
        """Puts these in the place of what a stage has logged, which goes."""
        self._rewrite([*(record for record in self.read() if record["stage"] != stage), *records])

    def settle(self, stage: str) -> None:
        """Keeps the last of the records of `stage` that speak of one step (or, without `step`, say the same)."""
        kept: dict[str, dict[str, Any]] = {}
        for number, record in enumerate(self.read()):
            kept[str(number) if record["stage"] != stage else _identity(record)] = record
        self._rewrite(list(kept.values()))

    def read(self) -> list[dict[str, Any]]:
        """All records; an unfinished last line is left out."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def mend(self) -> None:
        """Cuts off a last line that a kill left unfinished."""
        if self.path.exists():
            whole_lines = self.path.read_bytes().rpartition(b"\n")
            os.truncate(self.path, len(whole_lines[0] + whole_lines[1]))
        self._mended = True

    def _rewrite(self, records: list[dict[str, Any]]) -> None:
        if records or self.path.exists():
            write_text(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _identity(record: Mapping[str, Any]) -> str:
    if "step" in record:
        return json.dumps(["step", record.get("phase"), record["step"]])
    return json.dumps({key: value for key, value in record.items() if key not in ("time", "seconds")}, sort_keys=True)
