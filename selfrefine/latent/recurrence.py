"""The update rule of SR² (arXiv 2510.08222): one block for every update, the input in the first ones only."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from selfrefine.latent.block import Rotation, Stack
from selfrefine.latent.config import LatentReasonerConfig

State = tuple[Tensor, ...]
"""The latent estimates, (B, P + S, D) each; the answer is read from the first."""
Watch = Callable[[Tensor], None]
"""Is shown the estimate after each update."""


class Recurrence(nn.Module):
    """What turns one latent state into the next, from one alignment to the next."""

    states = 1

    def __init__(self, config: LatentReasonerConfig) -> None:
        super().__init__()
        self.config = config

    def reads_input(self, segment: int) -> bool:
        """Whether this segment needs the embedded input."""
        raise NotImplementedError

    def forward(
        self, state: State, embedded: Tensor | None, positions: Rotation, segment: int, watch: Watch | None = None
    ) -> State:
        """The state after one segment. `embedded` (B, P + S, D) is None where `reads_input` is false."""
        raise NotImplementedError


class SelfRefinement(Recurrence):
    """z ← f(z + e(x)) in the segments that reflect, z ← f(z) in all others; gradient through all M updates."""

    def __init__(self, config: LatentReasonerConfig) -> None:
        super().__init__(config)
        self.block = Stack(config)
        self.reflecting = None if config.shared else Stack(config)

    def reads_input(self, segment: int) -> bool:
        return segment in self.config.reflect_segments

    def forward(
        self, state: State, embedded: Tensor | None, positions: Rotation, segment: int, watch: Watch | None = None
    ) -> State:
        (z,) = state
        reflecting = 0
        if embedded is not None:
            reflecting = self.config.reflect_updates or self.config.updates
        for update in range(self.config.updates):
            z = self._reflect(z, embedded, positions) if update < reflecting else self._refine(z, positions)
            if watch is not None:
                watch(z)
        return (z,)

    def _reflect(self, z: Tensor, embedded: Tensor | None, positions: Rotation) -> Tensor:
        """Reflective representation learning: the estimate is held against the input."""
        assert embedded is not None
        found: Tensor = (self.reflecting or self.block)(z + embedded, positions)
        return found

    def _refine(self, z: Tensor, positions: Rotation) -> Tensor:
        """Dependency self-refinement: its parts are brought in line with one another, the input no longer read."""
        found: Tensor = self.block(z, positions)
        return found
