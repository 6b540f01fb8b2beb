"""Stablemax cross-entropy against values worked by hand and against float64."""

from __future__ import annotations

import math

import pytest
import torch

from selfrefine.latent.objective import answer_loss, log_stablemax
from selfrefine.training import IGNORED


def test_stablemax_by_hand() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0])  # s = 1, 2, 1/2
    wanted = torch.tensor([1, 2, 0.5]) / 3.5
    torch.testing.assert_close(log_stablemax(logits).exp(), wanted)


def test_float32_is_as_good_as_float64() -> None:
    torch.manual_seed(0)
    logits = torch.randn(200, 11) * 10 ** torch.empty(200, 1).uniform_(-3, 4)
    torch.testing.assert_close(log_stablemax(logits).double(), log_stablemax(logits.double()), rtol=1e-5, atol=2e-6)
    x = logits.double()
    s = torch.where(x >= 0, x + 1, 1 / (1 - x))
    torch.testing.assert_close(log_stablemax(x).exp(), s / s.sum(-1, keepdim=True))


@pytest.mark.parametrize("kind", ["stablemax", "softmax"])
def test_extreme_logits_have_finite_gradients(kind: str) -> None:
    logits = torch.tensor([[[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]]], requires_grad=True)
    answer_loss(logits, torch.tensor([[1, 1]]), kind).backward()  # type: ignore[arg-type]
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.abs().max() > 0


def test_a_row_counts_once_however_many_of_its_cells_are_judged() -> None:
    logits = torch.zeros(2, 4, 5)
    logits[0, 0, 2] = 3.0
    labels = torch.tensor([[2, IGNORED, IGNORED, IGNORED], [0, 1, 2, 3]])
    right = -math.log(4 / (4 + 4))  # s(3) = 4, s(0) = 1 four times
    assert answer_loss(logits, labels, "stablemax").item() == pytest.approx((right + math.log(5)) / 2)
    assert answer_loss(logits, torch.full((2, 4), IGNORED), "stablemax") == 0
