"""The `launch:` block of a recipe. Imports no torch, so that a plan can be checked without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pipelines.recipe import Recipe
    from pipelines.stage import StageSettings


Strategy = Literal["ddp", "fsdp", "deepspeed"]


class LaunchSettings(BaseModel):
    """How many processes train together. A step's batch stays what the recipe says: it is shared out to them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    processes: int = Field(1, ge=1, description="of a training, on each node: one for each GPU, or some of the cores")
    nodes: int = Field(1, ge=1, description="machines; more than one are started by Slurm or torchrun, not from here")
    strategy: Strategy = Field(
        "ddp",
        description="ddp: each process has the whole model; fsdp: FSDP2, weights, gradients and optimiser shared out; "
        "deepspeed: ZeRO-2, all of that but the weights",
    )
    config: str | None = Field(
        None, description="a file of `accelerate config`, by whose command processes start, or DeepSpeed's"
    )
    timeout: float = Field(
        1800.0, gt=0, description="seconds without a sign of life after which processes stop waiting for another"
    )

    @property
    def world(self) -> int:
        """Processes of a training on all nodes."""
        return self.processes * self.nodes


def launch_settings(recipe: Recipe, stage: StageSettings) -> LaunchSettings:
    """Those of the stage, else those of its recipe."""
    own: LaunchSettings | None = getattr(stage, "launch", None)
    return own or recipe.launch
