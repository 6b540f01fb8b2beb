"""Supervised fine-tuning of masked-diffusion models: cross-entropy at a random share of hidden answer tokens.

Source: LLaDA, arXiv 2502.09992, section 2.3 and algorithm 2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from trl import SFTTrainer

from selfrefine.training import IGNORED
from tasks.draw import seed64

LEAST = 1e-3
"""The smallest share of hidden tokens that is drawn; each token's loss is divided by that share."""


def shares(count: int, generator: torch.Generator) -> Tensor:
    """(count,) in [LEAST, 1): each uniform, together spread evenly, so that a batch is no luckier than the next.

    One random offset for evenly spaced points (the antithetic sampler of VDM, arXiv 2107.00630).
    """
    spaced = (torch.rand(1, generator=generator) + torch.arange(count) / count) % 1
    return LEAST + (1 - LEAST) * spaced[torch.randperm(count, generator=generator)]


def hide(ids: Tensor, answer: Tensor, share: Tensor, mask_id: int, generator: torch.Generator) -> Tensor:
    """(B, T) → (B, T): every token of `answer` (B, T) hidden with the probability of its row, `share` (B,)."""
    drawn = torch.rand(ids.shape, generator=generator).to(ids.device)
    return torch.where(answer & (drawn < share.to(ids.device)[:, None]), mask_id, ids)


def masked_loss(logits: Tensor, ids: Tensor, hidden: Tensor, answer: Tensor, share: Tensor) -> Tensor:
    """The mean over rows of Σ over hidden tokens of −log p(token) / share, divided by the answer's length.

    Its expectation bounds the answer's negative log-likelihood from above, for each token.

    Args:
        logits: (B, T, V), position i predicts token i.
        ids: (B, T), what stands where nothing is hidden.
        hidden, answer: (B, T) bool.
        share: (B,), the probability with which tokens of the row were hidden.
    """
    nats = torch.nn.functional.cross_entropy(logits[hidden].float(), ids[hidden], reduction="none")
    each = torch.zeros(ids.shape, device=logits.device).masked_scatter(hidden, nats)
    per_row = each.sum(1) / share.to(logits.device) / answer.sum(1).clamp(min=1)
    return per_row.mean()


class MaskedSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """TRL's SFT trainer with the loss of a masked-diffusion model. Rows come with `labels`, −100 outside the answer."""

    def __init__(self, *args: Any, mask_id: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._mask_id = mask_id
        self._passes = (-1, 0)  # the optimiser step, and the forward passes seen of it

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        ids, labels = inputs["input_ids"], inputs["labels"]
        answer = labels != IGNORED
        step, number = self._passes
        number = number + 1 if step == self.state.global_step else 0
        self._passes = (self.state.global_step, number)
        # Of its own, so that a training that resumes hides the same tokens, and no other draw is disturbed.
        identity = (self.args.seed, self.state.global_step, number, self.accelerator.process_index)
        generator = torch.Generator().manual_seed(seed64("hide", *identity) % 2**63)
        share = shares(len(ids), generator)
        shown = hide(ids, answer, share, self._mask_id, generator)
        hidden = answer & (shown == self._mask_id)
        outputs = model(input_ids=shown, attention_mask=inputs["attention_mask"], use_cache=False)
        loss = masked_loss(outputs.logits, ids, hidden, answer, share)
        with torch.no_grad():
            right = (outputs.logits.argmax(-1) == ids)[hidden].float()
            self._metrics["train"]["mean_token_accuracy"].append(float(right.mean()) if len(right) else 0.0)
        return (loss, outputs) if return_outputs else loss
