"""report: one HTML file that shows the run, or the runs of all `seeds:` together."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, ClassVar, Literal

from pipelines.files import whole
from pipelines.stage import StageResult, StageSettings

if TYPE_CHECKING:
    from pipelines.context import StageContext


class ReportStage(StageSettings):
    """Writes `report.html` into the stage's directory and into the run's."""

    kind: Literal["report"] = "report"

    gathers: ClassVar[bool] = True
    combines_seeds: ClassVar[bool] = True

    def run(self, context: StageContext) -> StageResult:
        from pipelines.report import write_report

        path = write_report(context.directory.parent)
        with whole(context.directory / path.name) as copy:
            shutil.copyfile(path, copy)
        return StageResult(numbers={"kilobytes": path.stat().st_size // 1000})
