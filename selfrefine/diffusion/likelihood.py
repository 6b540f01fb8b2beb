"""How likely a masked-diffusion model finds a completion, token by token: estimators that differ in one thing.

Each says in which order the tokens are supposed to have been revealed; a token is then predicted from the canvas on
which those before it stand and all others are hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.denoising import HIDDEN, Forward, uniforms
from selfrefine.stepwise.settings import Likelihood
from tasks.draw import seed64


@dataclass(frozen=True, slots=True)
class Rows:
    """B finished canvases: `prompt` (B, P) padded on the left, `prompt_mask` (B, P), `canvas` and `step_map` (B, L).

    `uid` (B,): what a row's random prompt masks are made from.
    """

    prompt: Tensor
    prompt_mask: Tensor
    canvas: Tensor
    step_map: Tensor
    uid: Tensor

    def part(self, rows: slice) -> Rows:
        """Some of the rows."""
        return Rows(self.prompt[rows], self.prompt_mask[rows], self.canvas[rows], self.step_map[rows], self.uid[rows])


def order_of(rows: Rows, likelihood: Likelihood, block_length: int) -> Tensor:
    """(B, L): when each token is supposed to have been revealed; `HIDDEN` where the sampler never came to it.

    one_step: all at once from the empty canvas (d1, arXiv 2504.12216; a mean field). blocks: block by block, all tokens
    of a block at once. trajectory: as the sampler did it. ar_order: from left to right (arXiv 2601.15165). More steps
    are nearer to how the completion was made, and cost a pass each.
    """
    places = torch.arange(rows.canvas.shape[1], device=rows.canvas.device).expand_as(rows.canvas)
    order = {
        "one_step": torch.zeros_like(places),
        "blocks": places // block_length,
        "trajectory": rows.step_map.long(),
        "ar_order": places,
    }[likelihood]
    return torch.where(rows.step_map == HIDDEN, HIDDEN, order)


def token_logprobs(forward: Forward, rows: Rows, order: Tensor, width: int, mask_id: int) -> tuple[Tensor, Tensor]:
    """(B, width), (B, width): log p of the first `width` tokens, and the entropy where each was predicted; nats.

    Zero where a token was never revealed. The whole canvas is read, hidden or not, whatever `width` is: a position that
    is left out would change what a model that looks both ways predicts elsewhere. Temperature is 1.
    """
    logprobs = torch.zeros(rows.canvas.shape[0], width, device=rows.canvas.device)
    entropies = torch.zeros_like(logprobs)
    begin = rows.prompt.shape[1]
    seen = torch.cat([rows.prompt_mask, torch.ones_like(rows.canvas)], 1)
    steps = order[:, :width]
    for step in torch.unique(steps[steps != HIDDEN]).tolist():
        wanted = steps == step
        active = wanted.any(1).nonzero().squeeze(1)
        places = wanted.any(0).nonzero().squeeze(1)
        state = torch.where((order != HIDDEN) & (order < step), rows.canvas, mask_id)
        ids = torch.cat([rows.prompt, state], 1)[active]
        logits = forward(ids, seen[active], places + begin).float()
        log_softmax = logits.log_softmax(-1)
        targets = rows.canvas[active][:, places]
        found = log_softmax.gather(-1, targets[..., None]).squeeze(-1)
        entropy = -(log_softmax.exp() * log_softmax).sum(-1)
        here = wanted[active][:, places]
        at = (active[:, None].expand_as(here)[here], places[None].expand_as(here)[here])
        logprobs = logprobs.index_put(at, found[here])
        entropies = entropies.index_put(at, entropy[here])
    return logprobs, entropies


def hide_prompt(rows: Rows, share: float, inner: int, seed: int, mask_id: int) -> Rows:
    """The rows with a random `share` of their prompt tokens hidden, other ones for each inner iteration.

    A function of seed, uid and iteration alone: the same for the policy, the old policy and the reference, and no
    draw of anybody else is disturbed. Source: d1, arXiv 2504.12216, section 3.2.
    """
    if share == 0:
        return rows
    hidden = torch.zeros_like(rows.prompt, dtype=torch.bool)
    for row, (uid, mask) in enumerate(zip(rows.uid.tolist(), rows.prompt_mask.tolist(), strict=True)):
        drawn = uniforms((seed64("prompt", seed, uid), inner), 0, sum(mask)) < share
        hidden[row, len(mask) - len(drawn) :] = torch.from_numpy(drawn)
    return Rows(torch.where(hidden, mask_id, rows.prompt), rows.prompt_mask, rows.canvas, rows.step_map, rows.uid)


def in_parts(rows: Rows, size: int, work: Callable[[Rows], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """`work` on at most `size` rows at a time, its results joined."""
    done = [work(rows.part(slice(start, start + size))) for start in range(0, len(rows.canvas), size)]
    return torch.cat([first for first, _ in done]), torch.cat([second for _, second in done])
