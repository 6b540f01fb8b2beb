"""reflect: some of the model's layers run again on their own output, and learn to improve on it (arXiv 2510.08222)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from engines.base import turns
from pipelines.checkpoints import depth_of
from pipelines.errors import RunError
from pipelines.stage import StageResult, TrainingSettings
from pipelines.training import Warnings, start_checkpoint, total_steps, trained
from selfrefine.latent.adapter.reflect import OWNED_KEYS
from selfrefine.latent.adapter.settings import ReflectSettings

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe


class ReflectStage(ReflectSettings, TrainingSettings):
    """Trains a loop over some of the model's layers on the labelled data; without it, the model stays what it was."""

    kind: Literal["reflect"] = "reflect"
    data: str = Field("labelled", description="the data section with problems and answers")
    system: str | None = Field(None, description="system prompt; none is sent unless given")
    suffix: str = Field("", description="put after each question, such as an answer-format request")

    uses: ClassVar[tuple[str, ...]] = ("model",)
    accepts: ClassVar[tuple[str, ...]] = ("tune", "update", "reinforce")
    owned_trl_keys: ClassVar[frozenset[str]] = OWNED_KEYS

    def check(self, recipe: Recipe) -> Iterator[str]:
        if recipe.engine.kind != "transformers" and any(stage.kind == "evaluate" for stage in recipe.stages):
            yield f"engine.kind: {recipe.engine.kind} cannot run what `{self.name}` trains; give transformers"
        asked, own = getattr(recipe.engine, "iterations", None), self.loop.lora_sets == "per_iteration"
        if own and asked is not None and asked > self.loop.iterations:
            yield (
                f"engine.iterations: {asked} are asked for, each has LoRA weights of its own, and `{self.name}` trains "
                f"{self.loop.iterations}; give no more"
            )
        depth, layers = depth_of(recipe.model), self.loop.layers
        if depth is not None and layers is not None and layers[1] > depth:
            yield (
                f"{self.name}.loop.layers: {list(layers)} ends behind the model's last layer; it has {depth}, counted "
                "from 0"
            )

    def run(self, context: StageContext) -> StageResult:
        from selfrefine.latent.adapter.reflect import reflect
        from selfrefine.sft import Example

        rows = context.rows(self.data)
        if not rows.problems:
            raise RunError(f"nothing to train on; data.{self.data} has no problems with answers")
        examples = [
            Example(turns(problem.question + self.suffix, self.system or None), problem.answer, problem.image)
            for problem in rows.problems
        ]
        texts = [text for e in examples for text in (*(turn["content"] for turn in e.messages), e.completion)]
        start = start_checkpoint(context, self.accepts, texts)
        warnings = Warnings(context.directory)

        def fit(directory: Path, saves: Path, **surroundings: Any) -> dict[str, float | int]:
            return reflect(examples, start, directory, saves, self, context.seed, warn=warnings.add, **surroundings)

        numbers = trained(context, total_steps(len(examples), self), fit)
        rows_in = len(rows.problems) + sum(rows.left_out.values())
        return StageResult(rows_in, len(examples), rows.left_out, numbers, warnings.lines())
