"""Answers of a reasoner: from a fresh estimate, segment by segment, rows that are done leaving early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.checkpoint import in_eval_mode
from selfrefine.latent.loop import segments
from selfrefine.latent.model import LatentReasoner
from selfrefine.training import IGNORED

Rule = Callable[[Tensor, Tensor], Tensor]
"""(B, S) inputs and (B, S) answers → (B,) bool: which of them keep the rules. It is not told the right answer."""


@dataclass(frozen=True, slots=True)
class Solved:
    """What each row's estimate said. A row that has left says at later alignments what it said at its last."""

    answers: Tensor
    """(N, B, S): the likeliest tokens at each alignment."""
    used: Tensor
    """(B,): segments that were run."""
    changes: Tensor | None
    """(N · updates, B): relative change of the estimate at each update, where asked for."""

    def right(self, labels: Tensor) -> Tensor:
        """(N, B) bool: whether every judged token is the label's."""
        return ((self.answers == labels) | (labels == IGNORED)).all(-1)

    def cells(self, labels: Tensor) -> Tensor:
        """(N, B): the share of the judged tokens that are the label's."""
        judged = labels != IGNORED
        return ((self.answers == labels) & judged).sum(-1) / judged.sum(-1)


@torch.no_grad()
def solve(
    model: LatentReasoner, input_ids: Tensor, count: int | None = None, rule: Rule | None = None, watched: bool = False
) -> Solved:
    """The answers at each of `count` alignments (those of training unless given).

    Every call begins from a fresh estimate: nothing of a training or of other boards is in it.

    Args:
        input_ids: (B, S), all of one length.
        rule: where given, a row leaves when two alignments running have the same answer and it keeps the rule.
        watched: measures the change at every update; no row may leave then.

    Raises `ValueError` for tokens that are none of the model's, or `count` below 1.
    """
    if rule is not None and watched:
        raise ValueError("changes are measured on whole batches; leave `rule` out")
    count = model.config.segments if count is None else count
    if count < 1:
        raise ValueError(f"a reasoner needs 1 segment or more, not {count}")
    said = torch.zeros((count, *input_ids.shape), dtype=torch.long, device=input_ids.device)
    used = torch.full((len(input_ids),), count, device=input_ids.device)
    live = torch.arange(len(input_ids), device=input_ids.device)
    state, changes = model.fresh(input_ids), []
    with in_eval_mode(model):
        for number in range(count):
            (segment,) = segments(model, input_ids[live], [number], state, watched)
            state = segment.state
            said[number:, live] = segment.logits.argmax(-1)
            if watched:
                assert segment.changes is not None
                changes.append(segment.changes)
            if rule is not None and number:
                now = said[number, live]
                done = (now == said[number - 1, live]).all(-1) & rule(input_ids[live], now)
                used[live[done]] = number + 1
                live = live[~done]
                state = tuple(each[~done] for each in state)
                if not len(live):
                    break
    return Solved(said, used, torch.cat(changes) if watched else None)
