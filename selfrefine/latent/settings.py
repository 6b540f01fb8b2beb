"""How a recurrent reasoner is trained; the defaults are those of SR² on Sudoku-Extreme."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from engines.settings import INERT
from selfrefine.training import Precision

if TYPE_CHECKING:
    import torch

    from selfrefine.latent.model import LatentReasoner


Average = Annotated[float, Field(ge=0, lt=1)]
"""Decay of a moving average."""


class RolloutSettings(BaseModel):
    """Training of a recurrent reasoner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(78_128, ge=1, description="optimiser steps; a whole number of rollouts, of N steps each")
    batch_size: int = Field(768, ge=1, description="boards in one rollout, over all processes")
    learning_rate: float = Field(1e-4, gt=0, description="after the warm-up; it stays there")
    warmup_steps: int = Field(2000, ge=0, description="optimiser steps in which the learning rate rises to its value")
    optimiser: Literal["adam_atan2", "adamw"] = Field(
        "adam_atan2", description="adam_atan2: arXiv 2407.05872, which needs no epsilon"
    )
    betas: tuple[Average, Average] = Field((0.9, 0.95), description="of the optimiser's two averages")
    weight_decay: float = Field(1.0, ge=0, description="times the learning rate")
    alignment: Literal["step", "sum", "last", "whole"] = Field(
        "step",
        description="step: an optimiser step at each alignment (the paper). Ablations: sum: one for the sum of all "
        "losses; last: one for the last loss, its gradient cut before the last segment; whole: the same, not cut",
    )
    ema: float | None = Field(
        0.995,
        gt=0,
        lt=1,
        description="decay of the moving average of the weights, which is saved; null for none",
    )
    ema_warmup: bool = Field(
        True,
        description="the decay is at most (1 + n) / (10 + n) after n rollouts, or a short training is lost in it; the "
        "public code has no such limit",
    )
    zero_gradients: bool = Field(
        True,
        description="what a segment does not use gets a gradient of zero, so that weight decay and momentum go on (the "
        "public code); false leaves it alone",
    )
    symmetry: Literal["none", "sudoku", "maze"] = Field(
        "none",
        description="train on a symmetric copy of each board, drawn anew each time: digits, bands, rows … of a "
        "sudoku; turns and mirror images of a maze",
    )
    symmetry_pool: int | None = Field(
        None,
        ge=1,
        le=10**9,
        description="how many copies of each board there are to draw from, and the board itself, as in the public code "
        "(1,000); a new one each time unless given",
    )
    precision: Precision = Field(
        "auto",
        description="of the updates; auto: bfloat16 on a GPU that computes in it, float32 elsewhere. On a CPU "
        "bfloat16 is for matrix products alone",
    )
    gradient_checkpointing: bool = Field(
        False, description="keep each block's input alone and compute the rest again in the backward pass"
    )
    compile: bool = Field(False, description="compile the update rule with torch.compile")
    judge_every: int | None = Field(
        None,
        ge=1,
        description="rollouts between two looks at the validation data with the weights of the step; the shares of "
        "boards and of cells that are right are in the log, `accuracy` and `cell_accuracy`. None unless given",
    )
    keep: Literal["last", "best"] = Field(
        "last",
        description="which weights are the checkpoint; best: those that solved most boards of the validation data at a "
        "look, of equals those with most right cells, then the first; the last ones are beside them in its folder "
        "`last`. `kept_accuracy` and `kept_step` in the log are those of the best weights so far",
    )
    save_every: int = Field(
        50, ge=1, description="rollouts between the points from which a stopped stage resumes", json_schema_extra=INERT
    )

    def rollout_steps(self, segments: int) -> int:
        """Optimiser steps in one rollout of a reasoner with so many segments."""
        return segments if self.alignment == "step" else 1

    def rows_of_a_process(self, processes: int) -> int:
        """Boards in a batch of each process. Raises ValueError where they cannot be shared out equally."""
        if self.batch_size % processes:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared out to {processes} processes; change one of them"
            )
        return self.batch_size // processes

    def check_steps(self, segments: int) -> None:
        """Raises `ValueError` where `steps` are no whole number of rollouts of a reasoner with so many segments."""
        length = self.rollout_steps(segments)
        if self.steps % length:
            raise ValueError(
                f"steps: {self.steps} is no whole number of rollouts of {length} steps; "
                f"take {-(-self.steps // length) * length}"
            )

    def ema_decay(self, rollouts: int) -> float:
        """The decay of the average, when `rollouts` have been taken in before."""
        assert self.ema is not None
        return min(self.ema, (1 + rollouts) / (10 + rollouts)) if self.ema_warmup else self.ema

    def optimiser_for(self, model: LatentReasoner) -> torch.optim.Optimizer:
        """The optimiser. The prefix moves by the sign of its gradient, as the "puzzle embedding" of the public code."""
        prefix = [model.prefix] if model.prefix.numel() else []
        others = [parameter for name, parameter in model.named_parameters() if name != "prefix"]
        if self.optimiser == "adamw":
            from torch.optim import AdamW

            return AdamW([*others, *prefix], lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay)
        from adam_atan2_pytorch import AdamAtan2

        groups: list[dict[str, object]] = [{"params": others}]
        if prefix:
            # Without memory, atan2(g, |g|) = π/4 · sign(g).
            groups.append({"params": prefix, "betas": (0.0, 0.0), "a": 4 / math.pi})
        optimiser: torch.optim.Optimizer = AdamAtan2(
            groups, lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
        )
        return optimiser
