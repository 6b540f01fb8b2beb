"""A test stage that works long, in shards, and notes each chunk of work in a file outside the run."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from pipelines.files import write_text
from pipelines.stage import StageResult, StageSettings


class Select(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    every: int = 2


class GrowStage(StageSettings):
    kind: Literal["grow"] = "grow"
    factor: float = 3
    chunk: int = 4
    seconds: float = 0
    diary: str = ""
    """Where chunks of work are noted, one line each."""
    select: Select = Select()
    requires: ClassVar[tuple[str, ...]] = ("sow",)
    counts_rows: ClassVar[bool] = True

    def run(self, context: Any) -> StageResult:
        items = json.loads((context.inputs["sow"] / "rows.json").read_text())
        shards = context.shards("measured", {"factor": self.factor, "rows": context.handle("sow").manifest.fingerprint})

        def work(chunk: Sequence[int]) -> list[dict[str, Any]]:
            if self.diary:
                with Path(self.diary).open("a") as diary:
                    diary.write(f"{context.name} {chunk[0]}\n")
            time.sleep(self.seconds)
            context.log({"step": chunk[0], "value": chunk[0] * self.factor})
            return [{"n": n, "height": n * self.factor + context.seed} for n in chunk]

        with context.progress(len(items), "growing") as bar:
            shards.run(items, self.chunk, work, bar)
        kept = [row for row in shards.rows() if row["n"] % self.select.every == 0]
        write_text(context.directory / "kept.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        dropped = {"not selected": len(items) - len(kept)}
        return StageResult(len(items), len(kept), dropped, {"tallest": kept[-1]["height"]})
