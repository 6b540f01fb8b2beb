"""TRL's GRPO trainer with step credit, through two of its methods; nothing of it is copied.

Branch rollouts go through the trainer's own generation, whichever back end it has, after its own rollouts and before
the loss. The advantages are then replaced by (B,) or (B, T) ones; the loss takes both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from trl.chat_template_utils import parse_response
from trl.data_utils import is_conversational
from trl.trainer.utils import nanstd

from rewards.contract import STEPS, score
from rewards.steps import StepReward, score_steps
from selfrefine.stepwise import credit
from selfrefine.stepwise.branches import Branches, Branching
from selfrefine.stepwise.cuts import boundaries, draw, flip
from selfrefine.stepwise.grpo import GRPOTrainer, with_vllm
from selfrefine.stepwise.parts import parts
from selfrefine.stepwise.plugged import Plugged
from selfrefine.stepwise.settings import StepCredit

_EPSILON = 1e-4  # what TRL adds to a standard deviation
_PARSED = ("response_template", "response_schema")
"""What a tokenizer has that parses its model's answers into reasoning, calls of tools and content."""

NO_CUT = -1


@dataclass(frozen=True, slots=True)
class Continued:
    """Whole completions that begin as a row did up to a cut, and how many tokens were generated for them."""

    completions: list[list[int]]
    tokens: int


@dataclass(slots=True)
class Round:
    """What one round of rollouts left behind: local rows, and rewards (B of all processes, rewards), NaN for None.

    `summed`: those that TRL adds up, without holes.
    """

    inputs: Sequence[Mapping[str, Any]]
    prompts: Sequence[Any]
    completions: Sequence[Any]
    completion_ids: Sequence[Sequence[int]]
    rewards: Tensor
    summed: Tensor
    prompt_ids: Sequence[list[int]] = ()


class StepCreditTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO whose advantages also know which part of a trace made the difference.

    With `credit: outcome`, or weight 0, no branch is run; and without the group filter every bit is TRL's. Where values
    are those of a step reward, `step_reward` is the one.
    """

    guesses: ClassVar[bool] = False
    """Whether the sampler guesses at whole answers on its way, as `one_step` wants it."""

    def __init__(
        self, *args: Any, step_credit: StepCredit, step_reward: StepReward | None = None, **kwargs: Any
    ) -> None:
        if any(getattr(each, "use_vllm", False) for each in (*args, kwargs.get("args"))):
            with_vllm()
        super().__init__(*args, **kwargs)
        names = list(self.reward_func_names)
        wanted = step_credit.outcome or names[0]
        if wanted not in names:
            raise ValueError(f"step credit: no reward is called `{wanted}`; there are: {', '.join(names)}")
        if step_credit.credit == "one_step" and not self.guesses:
            raise ValueError(
                "step credit: one_step wants a masked-diffusion model, whose sampler guesses at the answer"
            )
        if step_credit.stepped and step_reward is None:
            raise ValueError("step credit: a step reward is named, and not given")
        if step_credit.given and self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError("step credit: wants multi_objective_aggregation: sum_then_normalize")
        if step_credit.branching and self.temperature == 0:
            raise ValueError("step credit: temperature 0 makes all branches of a cut equal; give one above 0")
        if isinstance(self.reward_funcs[names.index(wanted)], torch.nn.Module):
            raise ValueError(f"step credit: `{wanted}` is a model; success is said by a function")
        if self.tools or self.rollout_func is not None:
            raise ValueError("step credit: tools and rollout_func have turns that cannot be cut; leave them out")
        # TRL 1.16 pads prompts with images on the left, and where their image tokens are on the tokenizer's own side.
        self._tokenizer.padding_side = "left"
        self.step_credit, self._step_reward = step_credit, step_reward
        self._plugged = Plugged(step_credit.credit) if step_credit.plugged else None
        self._outcome = names.index(wanted)
        self._round: Round | None = None

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        summed = credit.without_holes(rewards, self.num_generations) if self.model.training else rewards
        self._round = Round(inputs, prompts, completions, completion_ids_list, rewards, summed)
        if self.model.training:
            tokens = torch.tensor(float(self._generated(completion_ids_list)), device=rewards.device)
            self._note("rollout_tokens", tokens, total=True)
        return summed

    @property
    def generated_tokens(self) -> int:
        """Tokens of rollouts and branches since the training began, in all processes."""
        names = ("step_aware/rollout_tokens", "step_aware/branch_tokens")
        logged = sum(row.get(name, 0) for row in self.state.log_history for name in names)
        return int(logged + sum(sum(self._metrics["train"].get(name, ())) for name in names))

    def _generated(self, completion_ids: Sequence[Sequence[int]]) -> int:
        """Tokens that local rollouts took."""
        return sum(map(len, completion_ids))

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        start = time.perf_counter()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return output
        self._note("rollout_seconds", torch.tensor(time.perf_counter() - start))
        kept, self._round = self._round, None
        assert kept is not None
        settings, size = self.step_credit, self.num_generations
        outcome = kept.rewards[:, self._outcome] / settings.outcome_max
        advantages = self._gathered(output["advantages"])
        if settings.given:
            start = time.perf_counter()
            prompts = zip(output["prompt_ids"], output["prompt_mask"], strict=True)
            kept.prompt_ids = [ids[mask.bool()].tolist() for ids, mask in prompts]
            advantages = self._credited(kept, outcome, advantages, output["completion_mask"])
            self._note("branch_seconds", torch.tensor(time.perf_counter() - start))
        if settings.group_filter == "outcome":
            advantages = credit.filter_groups(advantages, outcome, size)
        self._note("decided_groups", 1 - credit.undecided(outcome, size).float().mean())
        local = advantages[self._local(len(kept.inputs))]
        output["advantages"] = local[:, : output["completion_mask"].shape[1]] if local.ndim == 2 else local
        return output

    def _credited(self, kept: Round, outcome: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
        """Advantages of all processes' rows, (B,) or (B, T of the longest)."""
        settings, size = self.step_credit, self.num_generations
        scale = self._scale(kept.summed)
        cuts = 1 if settings.credit == "progress" else settings.cuts
        is_open = (
            credit.open_rows(advantages, outcome, size, settings.gate) & credit.undecided(outcome, size)
            if settings.credit == "progress"
            else credit.undecided(outcome, size) & ~outcome.isnan()
        )
        local = self._local(len(kept.inputs))
        places = torch.full((len(kept.inputs), cuts), NO_CUT, dtype=torch.long)
        for row, opened in enumerate(is_open[local].tolist()):
            if opened:
                identity = self.args.seed, self.state.global_step, local.start + row
                there = self._cuts(kept, row)
                tossed = settings.cut == "coin"
                drawn = flip(there, cuts, settings.chance, *identity) if tossed else draw(there, cuts, *identity)
                places[row, : len(drawn)] = torch.tensor(drawn, dtype=torch.long)
        values = self._values(kept, places).to(outcome.device)
        self._note("open_rows", is_open.float().mean())
        gathered = self._gathered(values)
        self._note("value", gathered.nanmean())
        if settings.credit == "progress":
            return credit.progress(
                advantages, outcome, gathered[:, 0], size, weight=settings.weight, gate=settings.gate, scale=scale
            )
        # Padded to one length, because rows of one process are shorter than those of another.
        width = int(self._gathered(torch.tensor([mask.shape[1]], device=mask.device)).max())
        wide = torch.nn.functional.pad(mask, (0, width - mask.shape[1]))
        segments = self._gathered(self._segments(places.to(mask.device), wide))
        weight = settings.weight * float(self.reward_weights[self._outcome]) * settings.outcome_max
        reached = baselines = gathered
        if settings.calibrate != "none":
            baselines = credit.calibrated(outcome, gathered, size)
            whole = settings.calibrate == "values"
            reached = baselines if whole else credit.pooled(outcome, gathered, settings.branches)
        if self._plugged is None:
            gained = credit.telescope(outcome, reached, size, baselines)
        else:
            gained = self._plugged(outcome, reached, size)
        return credit.spread(advantages, outcome, gained, segments, size, weight=weight, scale=scale)

    def _values(self, kept: Round, places: Tensor) -> Tensor:
        """(B, K) of local rows: the mean outcome of the branches at each cut; NaN where there are none."""
        if self.step_credit.stepped:
            return self._rewarded(kept, places)
        wanted = [
            (row, k, int(cut)) for row, cuts in enumerate(places.tolist()) for k, cut in enumerate(cuts) if cut >= 0
        ]
        most = self._most(len(wanted))
        values = torch.full(places.shape, torch.nan)
        if not most:
            return values
        # Every process makes the same call with the same number of rows: where weights are sharded, all take part in
        # each forward pass. What is added is thrown away.
        padded = [(row, cut) for row, _, cut in wanted] + [(0, NO_CUT)] * (most - len(wanted))
        found = self._continued(kept, padded)[: len(wanted)]
        tokens = torch.tensor(float(sum(each.tokens for each in found)), device=self.accelerator.device)
        self._note("branch_tokens", tokens, total=True)
        branches = [(row, ids) for (row, _, _), each in zip(wanted, found, strict=True) for ids in each.completions]
        scores = iter(self._outcomes(kept, branches))
        for (row, k, _), each in zip(wanted, found, strict=True):
            values[row, k] = torch.tensor([next(scores) for _ in each.completions]).nanmean()
        return values

    def _rewarded(self, kept: Round, places: Tensor) -> Tensor:
        """(B, K) of local rows: the step reward of each part that ends in a cut; NaN where it is None.

        The last part has none: it ends in the outcome.
        """
        assert self._step_reward is not None
        cuts = [[int(cut) for cut in each if cut != NO_CUT] for each in places.tolist()]
        wanted = [row for row, each in enumerate(cuts) if each]
        values = torch.full(places.shape, torch.nan)
        # As above: a step reward may be a model whose weights are sharded. A filler is a row in one part.
        most = self._most(len(wanted))
        if not most:
            return values
        rows = wanted + [0] * (most - len(wanted))
        steps = [
            parts(kept.completion_ids[row], [self._tokens_before(cut) for cut in cuts[row]], self._decoded)
            for row in wanted
        ]
        steps += [self._decoded([kept.completion_ids[0]])] * (most - len(wanted))
        columns = self._columns(kept, rows, [kept.completion_ids[row] for row in rows])
        columns.pop(STEPS, None)
        prompts = [kept.prompts[row] for row in rows]
        completions = [kept.completions[row] for row in rows]
        found = score_steps(self._step_reward, prompts, completions, steps, **columns)
        for row, scores in zip(wanted, found, strict=False):
            known = [torch.nan if value is None else value / self.step_credit.outcome_max for value in scores[:-1]]
            values[row, : len(known)] = torch.tensor(known)
        there = places != NO_CUT
        for name, counted in (("cuts", there), ("cuts_unscored", there & values.isnan())):
            self._note(name, counted.sum().float().to(self.accelerator.device), total=True)
        return values

    def _tokens_before(self, cut: int) -> int:
        """How many tokens of a completion stand before a cut."""
        return cut

    def _most(self, count: int) -> int:
        """The largest count of any process."""
        return int(self._gathered(torch.tensor([count], device=self.accelerator.device)).max())

    def _cuts(self, kept: Round, row: int) -> list[int]:
        """Where a local row may be cut."""
        return boundaries(self._pieces(kept.completion_ids[row]), self.step_credit.gap)

    def _segments(self, places: Tensor, mask: Tensor) -> Tensor:
        """(B, T) of local rows: the number of each token's segment between the cuts `places` (B, K)."""
        return credit.segments_by_position(places, mask)

    def _continued(self, kept: Round, wanted: Sequence[tuple[int, int]]) -> list[Continued]:
        """For each (local row, cut): completions that go on from there. A row with `NO_CUT` is a filler."""
        branching = [Branching(kept.prompts[row], list(kept.completion_ids[row][: max(1, cut)])) for row, cut in wanted]
        found = Branches(self).sample(branching, self.step_credit.branches, len(kept.inputs))
        return [
            Continued(each, sum(len(ids) - cut for ids in each)) for (_, cut), each in zip(wanted, found, strict=True)
        ]

    def _outcomes(self, kept: Round, branches: Sequence[tuple[int, list[int]]]) -> list[float]:
        """The outcome reward of finished branches, each with its row's columns; NaN where it has no score."""
        if not branches:
            return []
        prompts = [kept.prompts[row] for row, _ in branches]
        completions = self._told(kept, branches)
        columns = self._columns(kept, [row for row, _ in branches], [ids for _, ids in branches])
        found = score(self.reward_funcs[self._outcome], prompts, completions, **columns)
        self._note("branches_unscored", torch.tensor(sum(v is None for v in found.values) / len(found.values)))
        return [float("nan") if value is None else value / self.step_credit.outcome_max for value in found.values]

    def _columns(self, kept: Round, rows: Sequence[int], ids: Sequence[Sequence[int]]) -> dict[str, Any]:
        """What TRL hands to a reward beside prompts and completions, for completions of these rows."""
        names = [key for key in kept.inputs[0] if key not in ("prompt", "completion", "completion_ids")]
        return {
            **{name: [kept.inputs[row][name] for row in rows] for name in names},
            "completion_ids": ids,
            "trainer_state": self.state,
            "log_extra": lambda column, values: None,  # these are no completions of the round that is logged
            "log_metric": lambda name, value: None,
        }

    def _told(self, kept: Round, branches: Sequence[tuple[int, list[int]]]) -> list[Any]:
        """Completions of local rows in the form in which TRL hands those of a round to a reward."""
        talking = is_conversational({"prompt": kept.prompts[0]})
        if talking and any(getattr(self._tokenizer, name, None) is not None for name in _PARSED):
            return [
                [parse_response(self._tokenizer, ids, prefix=kept.prompt_ids[row], tools=self.tools)]
                for row, ids in branches
            ]
        texts = self._decoded([ids for _, ids in branches])
        return [[{"role": "assistant", "content": text}] for text in texts] if talking else texts

    def _decoded(self, ids: Sequence[Sequence[int]]) -> list[str]:
        texts: list[str] = self.processing_class.batch_decode(ids, skip_special_tokens=True)
        return texts

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        decoded: list[str] = self.processing_class.batch_decode([[each] for each in ids])
        return decoded

    def _scale(self, rewards: Tensor) -> Tensor | None:
        """(B,): what TRL divided the advantages by, NaN in a group with one score; None where it did not."""
        if self.scale_rewards == "none":
            return None
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        total[rewards.isnan().all(1)] = torch.nan
        deviation: Tensor
        if self.scale_rewards == "batch":
            deviation = nanstd(total).expand_as(total)
        else:
            deviation = nanstd(total.view(-1, self.num_generations), dim=1).repeat_interleave(self.num_generations)
        return deviation + _EPSILON

    def _local(self, rows: int) -> slice:
        start = self.accelerator.process_index * rows
        return slice(start, start + rows)

    def _gathered(self, tensor: Tensor) -> Tensor:
        found: Tensor = self.accelerator.gather(tensor)
        return found

    def _note(self, name: str, value: Tensor, total: bool = False) -> None:
        if total:
            value = self._gathered(value.reshape(1)).sum()
        self._metrics["train"][f"step_aware/{name}"].append(float(value))
