"""A test stage that makes rows out of nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from pipelines.files import whole
from pipelines.stage import StageResult, TrainingSettings


class SowStage(TrainingSettings):
    kind: Literal["sow"] = "sow"
    count: int = Field(10, ge=1)
    accepts: ClassVar[tuple[str, ...]] = ("grow",)
    data: str = "field"
    owned_trl_keys: ClassVar[frozenset[str]] = frozenset({"output_dir", "seed"})

    def check(self, recipe: Any) -> Iterator[str]:
        if self.count > 1000:
            yield f"stages.{self.name}.count: the field holds 1000 seeds, not {self.count}"

    def run(self, context: Any) -> StageResult:
        with whole(context.directory / "rows.json") as path:
            path.write_text(json.dumps(list(range(self.count))))
        return StageResult(rows_out=self.count)
