"""reinforce: the model answers problems many times over, and learns from what its rewards say (arXiv 2510.01544)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from engines.base import turns
from engines.settings import VllmSettings, missing_engine
from pipelines.checkpoints import model_kind
from pipelines.errors import RunError
from pipelines.rewarded import check_file, check_reward
from pipelines.stage import Number, StageResult, TrainingSettings
from pipelines.training import Warnings, start_checkpoint, trained
from selfrefine.stepwise.reinforce import OWNED_KEYS, ReinforceSettings

if TYPE_CHECKING:
    from engines.base import Message
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe
    from tasks.problem import Problem


class ReinforceStage(ReinforceSettings, TrainingSettings):
    """Reinforcement learning on the labelled data, with step credit for the parts of a trace that make a difference."""

    kind: Literal["reinforce"] = "reinforce"
    data: str = Field("labelled", description="the data section with problems and answers")
    system: str | None = Field(None, description="system prompt; none is sent unless given")
    suffix: str = Field("", description="put after each question, such as an answer-format request")

    uses: ClassVar[tuple[str, ...]] = ("model",)
    accepts: ClassVar[tuple[str, ...]] = ("tune", "update", "reinforce")
    owned_trl_keys: ClassVar[frozenset[str]] = OWNED_KEYS
    trl_config: ClassVar[str] = "GRPOConfig"

    def versions(self) -> Mapping[str, Number]:
        from rewards.files import written
        from rewards.registry import entry

        versions = {f"reward {use.name}": entry(use.reward).version for use in self.rewards}
        if (step_reward := self._step_reward) is not None:
            versions["step reward"] = entry(step_reward).version
        if self.step_credit.plugged:
            versions["step credit"] = written(self.step_credit.credit, "credit").digest
        return versions

    def check(self, recipe: Recipe) -> Iterator[str]:
        if self.sampler == "vllm" and (missing := missing_engine(VllmSettings())):
            yield f"stages.{self.name}.sampler: {missing}"
        for use in self.rewards:
            yield from check_reward(recipe, self.data, use.reward, f"{self.name}.rewards", use.options)
        if (step_reward := self._step_reward) is not None:
            credit = self.step_credit
            yield from check_reward(
                recipe, self.data, step_reward, f"{self.name}.step_credit.reward", credit.options, steps=True
            )
        if self.step_credit.plugged:
            yield from check_file(self.step_credit.credit, f"{self.name}.step_credit.credit", "credit")
        if (kind := model_kind(recipe.model)) is not None:
            yield from (f"stages.{self.name}.{line}" for line in self.unfit(masked=kind == "diffusion"))

    def run(self, context: StageContext) -> StageResult:
        from selfrefine.stepwise.reinforce import reinforce

        rows = context.rows(self.data)
        if not rows.problems:
            raise RunError(f"nothing to train on; data.{self.data} has no problems with answers")
        start = start_checkpoint(context, self.accepts)
        warnings = Warnings(context.directory)
        recipe = context.recipe
        engine = recipe.engine.kind if any("engine" in stage.uses for stage in recipe.stages) else None

        def fit(directory: Path, saves: Path, **surroundings: Any) -> dict[str, float | int]:
            return reinforce(
                rows.problems, self._messages, start, directory, saves, self, context.seed, warn=warnings.add,
                engine=engine, **surroundings,
            )  # fmt: skip

        numbers = trained(context, self.steps, fit)
        rows_in = len(rows.problems) + sum(rows.left_out.values())
        return StageResult(rows_in, len(rows.problems), rows.left_out, numbers, warnings.lines())

    @property
    def _step_reward(self) -> str | None:
        return self.step_credit.reward if self.step_credit.stepped else None

    def _messages(self, problem: Problem) -> list[Message]:
        return turns(problem.question + self.suffix, self.system or None)
