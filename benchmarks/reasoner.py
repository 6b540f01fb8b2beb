"""Training steps of the recurrent reasoner against the same mathematics written plainly, and early stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from benchmarks.plain_reasoner import train, weights_of
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.model import LatentReasoner
from selfrefine.latent.settings import RolloutSettings

BATCH, UPDATES, SEGMENTS = 32, 8, 2
TIMES = 3
RATE, DECAY = 1e-4, 0.1


def speed_up(hidden_size: int, heads: int, cells: int, compiled: bool = False) -> tuple[float, float]:
    """How many times as many rollouts a second as the plain loop, the median of pairs in turns; seconds of ours.

    Raises `AssertionError` where the two do not have the same losses.
    """
    config = LatentReasonerConfig(
        seq_len=cells, hidden_size=hidden_size, heads=heads, updates=UPDATES, segments=SEGMENTS
    )
    torch.manual_seed(0)
    inputs, labels = torch.randint(1, 11, (BATCH, cells)), torch.randint(2, 11, (BATCH, cells))
    model = LatentReasoner(config)
    weights = weights_of(model.named_parameters())
    optimiser = RolloutSettings(learning_rate=RATE, weight_decay=DECAY).optimiser_for(model)
    if compiled:
        model.recurrence.compile()

    def ours() -> list[float]:
        return _rollout(model, optimiser, inputs, labels)

    def plain() -> list[float]:
        batches = [(inputs, labels)]
        return train(weights, model.z_init, batches, SEGMENTS, UPDATES, heads, config.rope_theta, RATE, DECAY, 0.99)[0]

    first = ours(), plain()
    assert torch.allclose(*map(torch.tensor, first), rtol=1e-4), first
    pairs = [(_seconds(ours), _seconds(plain)) for _ in range(TIMES)]
    return median(b / a for a, b in pairs), median(a for a, _ in pairs)


def _rollout(model: LatentReasoner, optimiser: torch.optim.Optimizer, inputs: Tensor, labels: Tensor) -> list[float]:
    losses, state = [], None
    for number in range(SEGMENTS):
        output = model(inputs, labels, state=state, first=number, count=1)
        output.loss.backward()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        optimiser.step()
        optimiser.zero_grad()
        state = output.state
        losses.append(float(output.loss.detach()))
    return losses


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
