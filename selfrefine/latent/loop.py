"""The loop of SR²: M updates, an alignment, and again, N times. The only place where a gradient is cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from selfrefine.latent.block import rotation
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.recurrence import Recurrence, State


class Reasoner(Protocol):
    """What the loop needs of a model."""

    @property
    def config(self) -> LatentReasonerConfig: ...
    @property
    def recurrence(self) -> Recurrence: ...
    def fresh(self, input_ids: Tensor) -> State: ...
    def embed(self, input_ids: Tensor) -> Tensor: ...
    def head(self, hidden: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Segment:
    """What stands at one alignment."""

    number: int
    state: State
    """Cut off: no gradient crosses to the next segment."""
    logits: Tensor
    """(B, S, V), with the gradient of this segment's updates."""
    changes: Tensor | None
    """(updates, B): ‖z_k − z_(k−1)‖ / ‖z_(k−1)‖ of each update's estimate, where asked for."""


def segments(
    model: Reasoner,
    input_ids: Tensor,
    numbers: Iterable[int],
    state: State | None = None,
    watched: bool = False,
    cut: bool = True,
) -> Iterator[Segment]:
    """Goes on from `state`, or from a fresh one, through the segments of these numbers.

    ```
    z ← z_init
    for n in 0 … N−1:                              # alignment segments
        for m in 1 … M: z ← f(z + e(x)) if n reflects else f(z)
        yield g(z); z ← z without its gradient
    ```

    Args:
        input_ids: (B, S).
        watched: whether the change of the estimate is measured at every update.
        cut: False lets the gradient through all segments, which the paper does not.
    """
    config = model.config
    length = config.prefix_tokens + input_ids.shape[1]
    head_size, turned = config.hidden_size // config.heads, config.positions == "rotary"
    positions = rotation(length, head_size, config.rope_theta, input_ids.device, turned)
    embedded: Tensor | None = None
    state = model.fresh(input_ids) if state is None else state
    for number in numbers:
        reads = model.recurrence.reads_input(number)
        if reads and (embedded is None or torch.is_grad_enabled()):
            # Once for all segments, unless each is to have its own gradient: a graph is freed by its backward pass.
            embedded = model.embed(input_ids)
        changes = _Changes(state) if watched else None
        state = model.recurrence(state, embedded if reads else None, positions, number, changes)
        logits = model.head(state[0])[:, config.prefix_tokens :]
        state = tuple(each.detach() for each in state) if cut else state
        yield Segment(number, state, logits, changes.measured() if changes else None)


class _Changes:
    """Measures how far each update moves the estimate."""

    def __init__(self, state: State) -> None:
        self._before = state[0].detach() if state else None
        self._found: list[Tensor] = []

    def __call__(self, z: Tensor) -> None:
        z = z.detach()
        before = torch.zeros_like(z) if self._before is None else self._before
        size = before.flatten(1).norm(dim=1)
        self._found.append((z - before).flatten(1).norm(dim=1) / size)
        self._before = z

    def measured(self) -> Tensor:
        return torch.stack(self._found)
