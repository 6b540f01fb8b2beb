"""recur: a small recurrent reasoner learns from scratch to fill in grids (SR², arXiv 2510.08222)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipelines.boards import copied_line, training_lines
from pipelines.errors import RunError
from pipelines.files import write_json
from pipelines.stage import DataStageSettings, Number, StageResult
from pipelines.training import trained
from selfrefine.latent.settings import RolloutSettings
from selfrefine.latent.spec import ReasonerSpec, check_alphabet

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe
    from selfrefine.latent.boards import Boards
    from selfrefine.latent.config import LatentReasonerConfig
    from tasks.problem import Problem

CURVES_FILE = "segments.json"
"""On the validation data: accuracy at each alignment, the change of the estimate at each update, the first boards."""
SHOWN = 2
"""Boards whose answers are kept."""


class RecurStage(RolloutSettings, DataStageSettings):
    """A recurrent reasoner on grids: sudoku, mazes. It needs no `model:` and answers by `engine: {kind: latent}`."""

    kind: Literal["recur"] = "recur"
    data: str = Field("labelled", description="the data section with grids and their answers")
    validation: str | None = Field(
        None, description="a data section on which each alignment is judged when the training is over"
    )
    beyond: int = Field(2, ge=1, description="how many times the trained number of alignments are judged")
    alphabet: str | None = Field(
        None, description="the characters of a grid, in the order of their tokens; those of the data unless given"
    )
    reasoner: ReasonerSpec = Field(ReasonerSpec(), description="what is trained")

    @field_validator("alphabet")
    @classmethod
    def _of_cells(cls, alphabet: str | None) -> str | None:
        if alphabet is not None:
            check_alphabet(alphabet)
        return alphabet

    @model_validator(mode="after")
    def _judged_on_something(self) -> RecurStage:
        if self.judge_every is not None and self.validation is None:
            raise ValueError(
                "judge_every looks at validation data; name a data section in `validation`, or leave it out"
            )
        if self.keep == "best" and self.judge_every is None:
            raise ValueError("keep: best chooses among the looks at the validation data; give judge_every")
        return self

    @model_validator(mode="after")
    def _copies_of_something(self) -> RecurStage:
        if self.symmetry_pool is not None and self.symmetry == "none":
            raise ValueError("symmetry_pool: there are no copies; give symmetry, or leave it out")
        return self

    @property
    def sections(self) -> tuple[str, ...]:
        return (*super().sections, *([f"data.{self.validation}"] if self.validation else []))

    @model_validator(mode="after")
    def _whole_rollouts(self) -> RecurStage:
        self.check_steps(self.reasoner.segments)
        rollouts = self.steps // self.rollout_steps(self.reasoner.segments)
        if self.keep == "best" and self.judge_every is not None and self.judge_every > rollouts:
            raise ValueError(
                f"judge_every {self.judge_every} is more than the {rollouts} rollouts of this training: keep: best "
                "has the last look alone to choose from; give a smaller one, or keep: last"
            )
        return self

    def check(self, recipe: Recipe) -> Iterator[str]:
        if recipe.engine.kind != "latent" and any(stage.kind == "evaluate" for stage in recipe.stages):
            yield f"engine.kind: a recurrent reasoner answers by `latent`, not by `{recipe.engine.kind}`"
        yield from training_lines(recipe, self)

    def run(self, context: StageContext) -> StageResult:
        from selfrefine.latent.config import LatentReasonerConfig
        from selfrefine.latent.fit import train_reasoner
        from selfrefine.latent.grids import GridError, boards_of, format_of

        rows = context.rows(self.data)
        if not rows.problems:
            raise RunError(f"nothing to train on; data.{self.data} has no problems with answers")
        alphabet, size = format_of(rows.problems)
        try:
            config = LatentReasonerConfig(self.alphabet or alphabet, size, **self.reasoner.model_dump())
            boards, left_out = boards_of(rows.problems, config, self.symmetry)
        except GridError as error:
            raise RunError(f"data.{self.data}: {error}") from None
        config.seq_len = boards.inputs.shape[1]  # the rows that are left out may be larger

        problems, unseen, said = self._unseen(context, config)

        def fit(directory: Path, saves: Path, **surroundings: Any) -> dict[str, float | int]:
            reports = {name: surroundings[name] for name in ("on_log", "should_stop", "tracking")}
            return train_reasoner(boards, config, directory, saves, self, context.seed, validation=unseen, **reports)

        numbers = trained(context, self.steps, fit)
        rows_in = len(rows.problems) + sum(rows.left_out.values())
        dropped = {**rows.left_out, **left_out}
        judged: dict[str, Number] = {}
        if unseen:
            with context.in_one_go(f"judging data `{self.validation}`"):
                judged = self._judged(context, problems, unseen)
        if line := copied_line(context.recipe, self):
            said.append(line)
        if judged.get(f"accuracy best {self.reasoner.segments}") == 0:
            said.append(
                f"keep: best: no look solved a board of data.{self.validation}; the weights with most right cells were "
                f"kept, of step {numbers['kept step']}"
            )
        return StageResult(rows_in, len(boards.inputs), dropped, numbers | judged, warnings=said)

    def _unseen(
        self, context: StageContext, config: LatentReasonerConfig
    ) -> tuple[Sequence[Problem], Boards | None, list[str]]:
        """The validation's problems and boards, and a line for each reason for which some were left out."""
        from selfrefine.latent.grids import GridError, boards_of
        from tasks.registry import makes_problems

        if self.validation is None:
            return (), None, []
        rows, where = context.rows(self.validation), f"data.{self.validation}"
        try:
            boards, missed = boards_of(rows.problems, config)
        except GridError as error:
            raise RunError(f"{where}: {error}") from None
        if (cells := boards.inputs.shape[1]) != config.seq_len:
            raise RunError(
                f"{where}: boards of {cells} cells, and those of data.{self.data} have {config.seq_len}; a reasoner is "
                "judged on boards such as it was trained on"
            )
        # In place of problems that are made, and left out as duplicates, others were.
        gone = {} if makes_problems(context.recipe.data[self.validation].task) else dict(rows.left_out)
        total = len(rows.problems) + sum(gone.values())
        said = [
            f"{where}: {number} of {total} boards are left out of the validation: {reason}"
            for reason, number in {**gone, **missed}.items()
        ]
        return rows.problems, boards, said

    def _judged(self, context: StageContext, problems: Sequence[Problem], unseen: Boards) -> dict[str, Number]:
        """Accuracy on the validation data at the first alignment, the last one of training, and beyond."""
        from selfrefine.latent.curves import curves, said

        count = self.reasoner.segments * self.beyond
        found = curves(context.directory / "checkpoint", unseen, count)
        shown = said(context.directory / "checkpoint", problems, count, SHOWN)
        write_json(
            context.directory / CURVES_FILE, {"segments": self.reasoner.segments, "curves": found, "boards": shown}
        )
        at = sorted({1, self.reasoner.segments, self.reasoner.segments * self.beyond})
        return {
            f"accuracy {weights} {number}": found[weights]["accuracy"][number - 1] for weights in found for number in at
        }
