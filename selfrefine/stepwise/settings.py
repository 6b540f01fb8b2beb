"""How step credit is assigned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engines.spelling import did_you_mean
from rewards.files import is_file
from selfrefine.stepwise.cuts import GAP

Credit = Literal["outcome", "progress", "segments", "one_step", "step_reward"]
Likelihood = Literal["one_step", "blocks", "trajectory", "ar_order"]
"""Estimators of a masked-diffusion model's log-probabilities, by name."""

NO_COIN = "coin is for autoregressive models, whose places depend on what they write; give block or uniform"
NO_PARTS = (
    "step_reward wants the parts of a text, and between any two steps of a masked-diffusion model's sampler there are "
    "none; give cut: block"
)


class StepCredit(BaseModel):
    """Credit for progress inside a trace, on top of whatever rewards and loss a trainer has.

    `outcome`: none, plain GRPO. `progress`: arXiv 2510.01544, Eq. 5, one number for a whole trace. `segments`: what
    each part between two cuts changed in the expected outcome, for wrong traces too (ours). `one_step`: the same with
    the outcome of a masked-diffusion sampler's guess at the whole answer in place of branches, so without more samples.
    `step_reward`: the same with what a function of the user's says of each part. A file's function: `segments`, or
    `step_reward` where there is a `reward`, with that function in the place of the difference of values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    credit: str = Field(
        "segments",
        description="outcome: none; progress: as published; segments: for each part between two cuts; one_step: "
        "segments by a masked-diffusion model's own guesses; step_reward: segments by a reward for parts; "
        "path/to/file.py:function: what becomes of outcomes and values, those of `reward` where it is given",
    )
    reward: str | None = Field(
        None,
        description="step_reward: what says how good a trace is after each part; a name, an entry point, or "
        "path/to/file.py:function",
    )
    options: Mapping[str, Any] = Field({}, description="step_reward: arguments of that reward")
    outcome: str | None = Field(None, description="the reward that says success; the first one unless given")
    outcome_max: float = Field(1.0, gt=0, description="what that reward gives for success")
    weight: float = Field(1.0, ge=0, description="of the credit; 0 runs no branch, and asks no step reward")
    branches: int = Field(2, ge=1, description="segments, progress: completions sampled from each cut")
    cuts: int = Field(1, ge=1, description="most places at which a trace is cut into parts; progress takes one")
    cut: Literal["block", "uniform", "coin"] = Field(
        "block",
        description="masked-diffusion models: between which steps of the sampler; uniform: any, as published, which "
        "leaves no parts of a text for step_reward. Autoregressive models: coin tosses one for each place, from the "
        "first on, where otherwise cuts are drawn among all that the finished trace has",
    )
    chance: float = Field(0.5, gt=0, le=1, description="coin: of a place to be a cut")
    gap: int = Field(GAP, ge=1, description="autoregressive models: least number of tokens between two cuts")
    gate: Literal["success", "advantage", "none"] = Field(
        "success", description="progress: rows that get credit; advantage is the published rule"
    )
    calibrate: Literal["values", "baselines", "none"] = Field(
        "values",
        description="all but progress: values are shrunk to what they foretold of the batch's outcomes, inside their "
        "group. values: wherever they stand, which scales the gradient before a cut down too; baselines: "
        "only as what a part began from, and what it reached is the mean of branches and the trace's own outcome "
        "(segments)",
    )
    group_filter: Literal["outcome", "none"] = Field(
        "outcome", description="outcome: a group whose answers are all right or all wrong weighs exactly nothing"
    )

    @field_validator("credit")
    @classmethod
    def _known(cls, credit: str) -> str:
        names = get_args(Credit)
        if credit not in names and not is_file(credit):
            there = f"{', '.join(names)}, or path/to/file.py:function"
            raise ValueError(f"no credit is called `{credit}`{did_you_mean(credit, names, f'; there are: {there}')}")
        return credit

    @model_validator(mode="after")
    def _possible(self) -> StepCredit:
        if self.calibrate == "baselines" and self.credit in ("one_step", "step_reward"):
            raise ValueError(f"calibrate: baselines wants branches, and {self.credit} takes none; give values or none")
        if self.calibrate == "baselines" and self.plugged:
            raise ValueError(
                "calibrate: baselines makes two sets of values, and a function takes one; give values or none"
            )
        if self.credit == "step_reward" and self.reward is None:
            raise ValueError("credit: step_reward wants to know which; give reward: path/to/file.py:function")
        if self.reward is not None and self.credit in ("progress", "segments", "one_step"):
            raise ValueError(f"reward: {self.credit} asks no step reward; give credit: step_reward, or leave it out")
        if self.options and self.reward is None:
            raise ValueError("options: they are arguments of a step reward, and none is named; give reward")
        return self

    @property
    def given(self) -> bool:
        """Whether parts of a trace get credit at all."""
        return self.credit != "outcome" and self.weight > 0

    @property
    def branching(self) -> bool:
        """Whether any branch is ever run."""
        return self.given and not self.stepped and self.credit != "one_step"

    @property
    def plugged(self) -> bool:
        """Whether credit is assigned by a function of the user's."""
        return is_file(self.credit)

    @property
    def stepped(self) -> bool:
        """Whether values are what a step reward says."""
        return self.credit == "step_reward" or (self.plugged and self.reward is not None)
