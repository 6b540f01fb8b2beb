"""Step-aware policy optimization of masked-diffusion models: TRL's GRPO trainer with another sampler and likelihood.

With `likelihood: one_step`, prompt masking and no step credit it is diffu-GRPO (d1, arXiv 2504.12216).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from engines.checkpoint import end_tokens, in_eval_mode
from engines.denoising import HIDDEN, Canvases, Denoiser, Schedule, completion
from engines.masked import forward_of
from selfrefine.diffusion.likelihood import Rows, hide_prompt, in_parts, order_of, token_logprobs
from selfrefine.stepwise import credit
from selfrefine.stepwise.settings import NO_COIN, NO_PARTS, Likelihood
from selfrefine.stepwise.trainer import NO_CUT, Continued, Round, StepCreditTrainer
from tasks.draw import seed64


class MaskedCreditTrainer(StepCreditTrainer):
    """A trace is cut between two steps of the sampler; a branch resumes from there.

    Args:
        likelihood: how the log-probabilities in the loss are estimated.
        prompt_masking: share of prompt tokens hidden from that estimate, other ones in each inner iteration.
    """

    guesses: ClassVar[bool] = True

    def __init__(
        self, *args: Any, schedule: Schedule, mask_id: int, likelihood: Likelihood, prompt_masking: float, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.use_vllm:
            raise ValueError("a masked-diffusion model is sampled by its own loop, not by vLLM; leave use_vllm out")
        if self.max_completion_length != schedule.length:
            raise ValueError(f"a canvas of {schedule.length} tokens, but completions of {self.max_completion_length}")
        if self.step_credit.cut == "coin":
            raise ValueError(f"step credit: {NO_COIN}")
        if self.step_credit.stepped and self.step_credit.cut != "block":
            raise ValueError(f"step credit: {NO_PARTS}")
        self._schedule, self._mask_id = schedule, mask_id
        self._likelihood, self._prompt_masking = likelihood, prompt_masking
        self._ends = end_tokens(self.accelerator.unwrap_model(self.model), self.processing_class)
        self._canvases: Canvases | None = None
        self._rows: Rows | None = None
        self._inner: int | None = None

    def _generate_single_turn(self, prompt_ids: Any, images: Any, *args: Any, **kwargs: Any) -> tuple[Any, None]:
        if images is not None:
            raise ValueError("this masked-diffusion model reads no images")
        uids = self._uids(len(prompt_ids))
        keys = [(seed64("rollout", self.args.seed, uid), 0) for uid in uids]
        device = self.accelerator.device
        blank = Canvases.blank(prompt_ids, self._schedule.length, self._mask_id, keys, str(device))
        guess_at = self._cut_steps() if self.step_credit.credit == "one_step" else ()
        canvases, denoiser = self._run(blank, guess_at)
        # What is asked of the likelihood before the batch exists is about these rows, for all inner iterations.
        self._canvases, self._inner = canvases, None
        self._note("rollout_passes", torch.tensor(float(denoiser.passes), device=device), total=True)
        return [completion(ids, self._ends)[0] for ids in canvases.ids.tolist()], None

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        assert self._canvases is not None
        output["canvas_ids"], output["step_map"] = self._canvases.ids, self._canvases.step_map
        output["row_uid"] = torch.tensor(self._uids(len(inputs)), device=self.accelerator.device)
        return output

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        width, canvas = inputs["completion_ids"].shape[1], inputs["canvas_ids"]
        same = (canvas[:, :width] == inputs["completion_ids"]) | (inputs["completion_mask"] == 0)
        assert same.all(), "the rows of a batch and their canvases have come apart"
        self._inner = self._step // self.args.steps_per_generation % self.num_iterations
        self._rows = Rows(inputs["prompt_ids"], inputs["prompt_mask"], canvas, inputs["step_map"], inputs["row_uid"])
        chosen = {
            name: inputs[name][:, min(self._inner, inputs[name].shape[1] - 1)]
            for name in ("old_per_token_logps", "ref_per_token_logps")
            if inputs.get(name) is not None
        }
        loss: Tensor = super()._compute_loss(model, inputs | chosen)
        return loss

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor, None]:
        """In the loss: (B, T) for the inner iteration at hand. Before, for old policy and reference: (B, inner, T)."""
        if self._inner is not None:
            assert self._rows is not None
            return *self._estimate(model, self._rows, logits_to_keep, self._inner, len(input_ids)), None
        assert self._canvases is not None
        prompt = slice(0, input_ids.shape[1] - logits_to_keep)
        uid = torch.tensor(self._uids(len(input_ids)), device=input_ids.device)
        rows = Rows(input_ids[:, prompt], attention_mask[:, prompt], self._canvases.ids, self._canvases.step_map, uid)
        inner = range(self.num_iterations if self._prompt_masking else 1)
        found = [self._estimate(model, rows, logits_to_keep, k, batch_size or len(input_ids)) for k in inner]
        return torch.stack([each for each, _ in found], 1), torch.stack([each for _, each in found], 1), None

    def _estimate(self, model: Any, rows: Rows, width: int, inner: int, batch_size: int) -> tuple[Tensor, Tensor]:
        def work(part: Rows) -> tuple[Tensor, Tensor]:
            hidden = hide_prompt(part, self._prompt_masking, inner, self.args.seed, self._mask_id)
            order = order_of(hidden, self._likelihood, self._schedule.block_length)
            with self.accelerator.autocast():
                return token_logprobs(forward_of(model), hidden, order, width, self._mask_id)

        return in_parts(rows, batch_size, work)

    def _generated(self, completion_ids: Sequence[Sequence[int]]) -> int:
        assert self._canvases is not None
        return int((self._canvases.step_map != HIDDEN).sum())

    def _cuts(self, kept: Round, row: int) -> list[int]:
        steps = self._cut_steps()
        if not self.step_credit.stepped:
            return steps
        return [step for step in steps if self._tokens_before(step) < len(kept.completion_ids[row])]

    def _tokens_before(self, cut: int) -> int:
        start: int = self._schedule.block(cut).start
        return start

    def _cut_steps(self) -> list[int]:
        """The steps before which a trace may be cut."""
        return self._schedule.boundaries if self.step_credit.cut == "block" else list(range(1, self._schedule.steps))

    def _segments(self, places: Tensor, mask: Tensor) -> Tensor:
        assert self._canvases is not None
        width = mask.shape[1]
        step_map = torch.nn.functional.pad(self._canvases.step_map, (0, max(0, width - self._schedule.length)))
        return credit.segments_by_step(step_map[:, :width].long(), places, mask)

    def _continued(self, kept: Round, wanted: Sequence[tuple[int, int]]) -> list[Continued]:
        assert self._canvases is not None
        if self.step_credit.credit == "one_step":
            return [Continued([self._guess(row, step)], 0) for row, step in wanted]
        count = self.step_credit.branches
        repeated = [(row, step, n) for row, step in wanted for n in range(count)]
        keys = [(self._canvases.keys[row][0], 1 + step * count + n) for row, step, n in repeated]
        steps = [self._schedule.steps if step == NO_CUT else step for _, step, _ in repeated]
        begun = self._canvases.at([row for row, _, _ in repeated], steps, self._mask_id, keys)
        canvases, denoiser = self._run(begun)
        self._note("branch_passes", torch.tensor(float(denoiser.passes), device=begun.ids.device), total=True)
        behind = torch.tensor(steps, device=begun.ids.device)[:, None]
        tokens = ((canvases.step_map != HIDDEN) & (canvases.step_map >= behind)).sum(1).tolist()
        whole = [completion(ids, self._ends)[0] for ids in canvases.ids.tolist()]
        return [
            Continued(whole[start : start + count], sum(tokens[start : start + count]))
            for start in range(0, len(whole), count)
        ]

    def _guess(self, row: int, step: int) -> list[int]:
        """What the sampler would have answered at once before that step; the answer itself where the row had ended."""
        assert self._canvases is not None
        if step == NO_CUT:
            return []
        guess = self._canvases.guesses[step][row]
        found = self._canvases.ids[row] if (guess == self._mask_id).all() else guess
        return completion(found.tolist(), self._ends)[0]

    def _run(self, canvases: Canvases, guess_at: Collection[int] = ()) -> tuple[Canvases, Denoiser]:
        model = self.accelerator.unwrap_model(self.model)
        denoiser = Denoiser(
            forward_of(model),
            self._schedule,
            self._mask_id,
            self.processing_class.pad_token_id,
            end_ids=self._ends,
            temperature=self.temperature,
            batch_size=self.args.per_device_train_batch_size,
        )
        with in_eval_mode(model), self.accelerator.autocast():
            denoiser.run(canvases, guess_at)
        return canvases, denoiser

    def _uids(self, rows: int) -> list[int]:
        """Numbers of the local rows of this round, which no other round or process has."""
        first = (self.state.global_step * self.accelerator.num_processes + self.accelerator.process_index) * rows
        return list(range(first, first + rows))
