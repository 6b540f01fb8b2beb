"""Reinforcement refuses, in a line and before the first step, what a model of the other kind would do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engines.base import EngineError
from selfrefine.stepwise.reinforce import ReinforceSettings, reinforce
from tasks.problem import Problem

ONE_STEP = {"step_credit": {"credit": "one_step"}}


@pytest.mark.parametrize(
    ("kind", "changes", "engine", "complaint"),
    [
        ("causal", ONE_STEP, None, "step_credit.credit: one_step wants a masked-diffusion model"),
        ("masked", {"top_p": 0.9}, None, "top_p: the sampler of a masked-diffusion model knows temperature alone"),
        ("masked", {"trl": {"top_k": 5}}, None, "trl.top_k: the sampler"),
        ("masked", {"trl": {"beta": 0.1, "min_p": 0.1}}, None, "trl.min_p: the sampler"),
        ("masked", {"trl": {"repetition_penalty": 1.1}}, None, "trl.repetition_penalty: the sampler"),
        ("masked", {"sampler": "vllm"}, None, "sampler: vllm runs no masked-diffusion models"),
        ("masked", {}, "transformers", "a masked-diffusion model (is_causal: false); give engine.kind=diffusion"),
        ("masked", {}, "vllm", "a masked-diffusion model (is_causal: false); give engine.kind=diffusion"),
        ("causal", {}, "diffusion", "an autoregressive model; engine.kind=diffusion wants a masked-diffusion one"),
    ],
)
def test_what_the_kind_of_model_cannot_do_is_one_line_before_the_first_step(
    masked: str, causal: str, tmp_path: Path, kind: str, changes: Any, engine: str | None, complaint: str
) -> None:
    settings = ReinforceSettings.model_validate({"steps": 1, "prompts": 1, "group": 2, "max_new_tokens": 8, **changes})
    checkpoint = {"masked": masked, "causal": causal}[kind]
    problems = [Problem("0", "ab", "a")]
    with pytest.raises(EngineError, match=rf"^{re.escape(f'{checkpoint}: {complaint}')}[^\n]*$"):
        reinforce(
            problems, lambda problem: [{"role": "user", "content": problem.question}], checkpoint, tmp_path / "out",
            tmp_path / "saves", settings, seed=1, engine=engine,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "changes", "engine"), [("masked", ONE_STEP, "diffusion"), ("causal", {}, "endpoint")])
def test_what_it_can_do_is_done(masked: str, causal: str, tmp_path: Path, kind: str, changes: Any, engine: str) -> None:
    diffusion = {"block_length": 4, "steps_per_block": 2}
    settings = ReinforceSettings.model_validate(
        {"steps": 1, "prompts": 1, "group": 2, "max_new_tokens": 8, "diffusion": diffusion, "top_p": 1.0, **changes}
    )
    numbers = reinforce(
        [Problem("0", "ab", "a")], lambda problem: [{"role": "user", "content": problem.question}],
        {"masked": masked, "causal": causal}[kind], tmp_path / "out", tmp_path / "saves", settings, seed=1,
        engine=engine,
    )  # fmt: skip
    assert numbers["steps"] == 1


def test_rewards_normalised_one_by_one_are_refused_with_step_credit_alone() -> None:
    trl = {"multi_objective_aggregation": "normalize_then_sum"}
    with pytest.raises(ValueError, match=r"trl\.multi_objective_aggregation: step credit wants sum_then_normalize"):
        ReinforceSettings.model_validate({"trl": trl})
    for credit in ({"credit": "outcome"}, {"weight": 0}):
        assert ReinforceSettings.model_validate({"trl": trl, "step_credit": credit}).trl == trl
    assert ReinforceSettings.model_validate({"trl": {"multi_objective_aggregation": "sum_then_normalize"}})
