"""update: train on the labelled data and the kept pairs, with normal prompts (arXiv 2510.10487, section 2.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pipelines.files import whole
from pipelines.launching.settings import Strategy
from pipelines.stage import StageResult, TrainingSettings
from pipelines.stages.filter import read_kept
from pipelines.stages.tune import TuneStage
from pipelines.training import ACCEPTED_FILE, accepted_before, start_checkpoint, train
from selfrefine.sft import OWNED_KEYS, SftSettings

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe
    from tasks.problem import Problem


class UpdateStage(SftSettings, TrainingSettings):
    """Plain instruction tuning on D_k ∪ F_k: what is labelled, and what earlier and this round's filter kept."""

    kind: Literal["update"] = "update"
    data: str = Field("labelled", description="the data section with questions and answers")
    start: Literal["tuned", "recipe"] = Field(
        "tuned", description="weights to begin with: the tuned model's, or the last update's (at first the recipe's)"
    )
    truth: bool = Field(
        False, description="train on the true answers of all unlabelled images: the ceiling, not a method"
    )

    requires: ClassVar[tuple[str, ...]] = ("tune", "generate", "filter")
    otherwise: ClassVar[str] = (
        "it trains on what `filter` kept. To train on questions and answers alone, give a stage "
        "{kind: tune, split: {pair: 0, question: 0, answer: 1}, prompts: {system: null}}"
    )
    accepts: ClassVar[tuple[str, ...]] = ("update",)
    uses: ClassVar[tuple[str, ...]] = ("model",)
    strategies: ClassVar[tuple[Strategy, ...]] = ("ddp", "fsdp", "deepspeed")
    owned_trl_keys: ClassVar[frozenset[str]] = OWNED_KEYS

    def check(self, recipe: Recipe) -> Iterator[str]:
        if self.start == "recipe" and recipe.model.build is not None:
            yield f"{self.name}.start: a model built in the recipe knows nothing to start from; use `tuned`"
        tuned = next((each for each in reversed(recipe.stages) if isinstance(each, TuneStage)), None)
        if self.start == "tuned" and tuned is not None and tuned.lora not in (None, self.lora):
            yield f"{self.name}.lora: goes on with the adapter of `{tuned.name}`, made otherwise; give both the same"

    def run(self, context: StageContext) -> StageResult:
        from selfrefine.sft import Example

        rows = context.rows(self.data)
        own = list(context.rows(context.settings("generate").data).problems) if self.truth else _kept(context)
        accepted = [*accepted_before(context), *own]
        if not (context.directory / ACCEPTED_FILE).exists():  # else it is there from before a kill, or from the driver
            _write(context, accepted)
        problems = [*rows.problems, *accepted]
        examples = [Example([{"role": "user", "content": p.question}], p.answer, p.image) for p in problems]
        start = (
            str(context.inputs["tune"] / "checkpoint")
            if self.start == "tuned"
            else start_checkpoint(context, ["update"])
        )
        numbers = train(context, examples, start, self)
        return StageResult(
            len(problems) + sum(rows.left_out.values()),
            len(examples),
            rows.left_out,
            {"pairs": len(accepted), **numbers},
        )


def _kept(context: StageContext) -> list[Problem]:
    from tasks.problem import Problem

    return [
        Problem(row["id"], row["question"], row["answer"], row["image"], row["image_id"], row["type"])
        for row in read_kept(context.inputs["filter"])
    ]


def _write(context: StageContext, accepted: Sequence[Problem]) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    names = ("id", "question", "answer", "image", "cluster", "kind")
    schema = arrow.schema([(name, arrow.string()) for name in names])
    rows = [{name: getattr(problem, name) for name in names} for problem in accepted]
    with whole(context.directory / ACCEPTED_FILE) as path:
        parquet.write_table(arrow.Table.from_pylist(rows, schema=schema), path)
