"""How a loop is trained. Imports no torch, so that a recipe can be checked without it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from engines.looped.config import LoopSettings
from selfrefine.sft import EpochSettings
from selfrefine.training import LoraSettings


class ReflectSettings(EpochSettings):
    """How a loop over a model's layers is trained; the model's own weights stay as they are."""

    learning_rate: float = Field(1e-4, gt=0)
    gate_rate: float = Field(10.0, gt=0, description="the gates' learning rate, as a multiple of the LoRA weights'")
    loop: LoopSettings = Field(LoopSettings(), description="what is looped, and which iterations have a loss")
    lora: LoraSettings | None = Field(
        None, description="on the looped layers, in the loop alone; target_modules names them within a layer"
    )
    curriculum: bool = Field(
        True, description="train 1, 2, … iterations in turn, each for the same share of the steps, up to the loop's"
    )
    freeze_vision: Literal[True] = Field(True, description="as is the whole of the model")

    @model_validator(mode="after")
    def _something_to_train(self) -> Self:
        if self.loop.iterations == 0:
            raise ValueError("loop.iterations 0: without an iteration there is nothing to train; give 1 or more")
        return self

    # Not of the loop itself: a checkpoint that was trained so is still read.
    @model_validator(mode="after")
    def _all_takes_place(self) -> Self:
        loop = self.loop
        most = loop.iterations
        for name, value in (("input_iterations", loop.input_iterations), ("align_every", loop.align_every)):
            if value > most:
                raise ValueError(f"loop.{name} {value} is more than loop.iterations {most}; give {most} or less")
        if loop.lora_sets == "per_iteration" and self.lora is None:
            raise ValueError("loop.lora_sets per_iteration: there are no LoRA weights; give lora, or leave it out")
        if self.curriculum and self.steps is not None and self.steps < loop.iterations:
            raise ValueError(
                f"steps {self.steps}: a curriculum of {loop.iterations} iterations takes a step for each at least; "
                "raise steps, or give curriculum: false"
            )
        return self


def depth_at(step: int, steps: int, deepest: int) -> int:
    """Iterations in optimiser step 0 … `steps` − 1 of a curriculum: 1, 2, … `deepest`, each for the same share.

    A function of the step alone, so that a training that resumes goes on as it would have.
    """
    return min(deepest, 1 + step * deepest // steps)
