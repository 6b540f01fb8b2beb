"""tune: a model learns to ask as well as to answer (arXiv 2510.10487, section 2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pipelines.launching.settings import Strategy
from pipelines.stage import StageResult, TrainingSettings
from pipelines.training import accepted_before, start_checkpoint, train
from selfrefine.sft import OWNED_KEYS, SftSettings
from selfrefine.triad.hide import Split
from selfrefine.triad.templates import Prompts

if TYPE_CHECKING:
    from pipelines.context import StageContext


class TuneStage(SftSettings, TrainingSettings):
    """Trains on the labelled data; each sample hides its question, its answer, or both.

    A recipe may have several, each under a `name`: every one goes on from the one before; the last asks and answers.
    """

    kind: Literal["tune"] = "tune"
    data: str = Field("labelled", description="the data section with questions and answers")
    split: Split = Split()
    prompts: Prompts = Field(Prompts(), description="wording of the tasks; generate and filter use the same")

    uses: ClassVar[tuple[str, ...]] = ("model",)
    accepts: ClassVar[tuple[str, ...]] = ("tune", "update")
    strategies: ClassVar[tuple[Strategy, ...]] = ("ddp", "fsdp", "deepspeed")
    owned_trl_keys: ClassVar[frozenset[str]] = OWNED_KEYS

    def run(self, context: StageContext) -> StageResult:
        from selfrefine.triad.hide import tuning_examples

        rows = context.rows(self.data)
        problems = [*rows.problems, *accepted_before(context)]
        examples = list(tuning_examples(problems, self.split, self.prompts, context.seed))
        texts = [text for problem in rows.problems for text in (problem.question, problem.answer)]
        # All three tasks' wording, whatever this stage's split: another `tune` may go on with the same model.
        worded = tuning_examples(rows.problems, Split(), self.prompts, context.seed)
        texts += [message["content"] for example in worded for message in example.messages]
        start = start_checkpoint(context, self.accepts, texts)
        numbers = train(context, examples, start, self)
        return StageResult(len(problems) + sum(rows.left_out.values()), len(examples), rows.left_out, numbers)
