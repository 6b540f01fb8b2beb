"""A test stage that looks at all stages before it."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pipelines.files import write_json
from pipelines.stage import StageResult, StageSettings


class TallyStage(StageSettings):
    kind: Literal["tally"] = "tally"
    gathers: ClassVar[bool] = True

    def run(self, context: Any) -> StageResult:
        write_json(context.directory / "tally.json", [[each.name, each.manifest.rows_out] for each in context.upstream])
        return StageResult(numbers={"stages": len(context.upstream)})


class CombineStage(TallyStage):
    kind: Literal["combine"] = "combine"
    combines_seeds: ClassVar[bool] = True
