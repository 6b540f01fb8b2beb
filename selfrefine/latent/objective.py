"""What a reasoner's logits are judged by: cross-entropy over the answer's tokens, stablemax or softmax."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from selfrefine.training import IGNORED


def log_stablemax(logits: Tensor) -> Tensor:
    """(…, V) → (…, V): log of s(x) / Σ s, where s(x) is x + 1 from 0 on and 1 / (1 − x) below (arXiv 2501.04697).

    In float32 at least. log s is taken directly, so it neither overflows nor is rounded away where s is tiny.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    magnitude = torch.log1p(logits.abs())
    log_s = torch.where(logits < 0, -magnitude, magnitude)
    return log_s - log_s.logsumexp(-1, keepdim=True)


def answer_loss(logits: Tensor, labels: Tensor, kind: Literal["stablemax", "softmax"]) -> Tensor:
    """The mean over rows of the mean over a row's judged positions of −log p(label).

    Args:
        logits: (B, S, V).
        labels: (B, S), `IGNORED` where nothing is judged. A row without a judged position counts as 0.
    """
    logs = log_stablemax(logits) if kind == "stablemax" else logits.float().log_softmax(-1)
    judged = labels != IGNORED
    nats = -logs.gather(-1, labels.where(judged, 0)[..., None])[..., 0]
    return (nats.where(judged, 0).sum(1) / judged.sum(1).clamp(min=1)).mean()
