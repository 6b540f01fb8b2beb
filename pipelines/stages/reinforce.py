"""reinforce: the model answers problems many times over, and learns from what its rewards say (arXiv 2510.01544)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from pipelines.stage import Number, StageResult, TrainingSettings
from pipelines.training import reinforced, start_checkpoint
from selfrefine.stepwise.reinforce import OWNED_KEYS, ReinforceSettings

if TYPE_CHECKING:
    from pipelines.context import StageContext
    from pipelines.recipe import Recipe


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
        from rewards.registry import entry

        return {f"reward {use.name}": entry(use.reward).version for use in self.rewards}

    def check(self, recipe: Recipe) -> Iterator[str]:
        from rewards.contract import RewardError
        from rewards.registry import entry

        for use in self.rewards:
            try:
                entry(use.reward)
            except RewardError as error:
                yield f"{self.name}.rewards: {error}"

    def run(self, context: StageContext) -> StageResult:
        rows = context.rows(self.data)
        start = start_checkpoint(context, self.accepts)
        numbers, warnings = reinforced(context, rows.problems, start, self)
        return StageResult(
            len(rows.problems) + sum(rows.left_out.values()), len(rows.problems), rows.left_out, numbers, warnings
        )
