"""The update rules that SR² is compared with, on the same embedding, block, head and trainer."""

from __future__ import annotations

import torch
from torch import Tensor

from selfrefine.latent.block import Rotation, Stack
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.recurrence import Recurrence, SelfRefinement, State, Watch


class Plain(Recurrence):
    """A transformer of unshared blocks: the input passes once."""

    states = 0

    def __init__(self, config: LatentReasonerConfig) -> None:
        super().__init__(config)
        self.stack = Stack(config)

    def reads_input(self, segment: int) -> bool:
        return True

    def forward(
        self, state: State, embedded: Tensor | None, positions: Rotation, segment: int, watch: Watch | None = None
    ) -> State:
        z = self.stack(embedded, positions)
        if watch is not None:
            watch(z)
        return (z,)


class _TwoStates(Recurrence):
    """A slow state, from which the answer is read, and a fast one that is updated `fast_updates` times for each of its.

    The input is injected in each update of the fast state.
    """

    states = 2

    def reads_input(self, segment: int) -> bool:
        return True

    def _pair(self) -> tuple[Stack, Stack]:
        """The modules of the slow state and of the fast one."""
        raise NotImplementedError

    def _slow(self, slow: Tensor, fast: Tensor, positions: Rotation) -> Tensor:
        found: Tensor = self._pair()[0](slow + fast, positions)
        return found

    def _fast(self, fast: Tensor, slow: Tensor, embedded: Tensor, positions: Rotation) -> Tensor:
        found: Tensor = self._pair()[1](fast + (slow + embedded), positions)
        return found


class Hierarchical(_TwoStates):
    """HRM (arXiv 2506.21734): two modules, gradient through the last update of each alone. No adaptive halting."""

    def __init__(self, config: LatentReasonerConfig) -> None:
        super().__init__(config)
        self.high, self.low = Stack(config), Stack(config)

    def _pair(self) -> tuple[Stack, Stack]:
        return self.high, self.low

    def forward(
        self, state: State, embedded: Tensor | None, positions: Rotation, segment: int, watch: Watch | None = None
    ) -> State:
        assert embedded is not None
        slow, fast = state
        rounds, inner = self.config.updates, self.config.fast_updates
        with torch.no_grad():
            for number in range(rounds):
                last = number == rounds - 1
                for _ in range(inner - last):
                    fast = self._fast(fast, slow, embedded, positions)
                if not last:
                    slow = self._slow(slow, fast, positions)
                    if watch is not None:
                        watch(slow)
        fast = self._fast(fast, slow, embedded, positions)
        slow = self._slow(slow, fast, positions)
        if watch is not None:
            watch(slow)
        return slow, fast


class Tiny(_TwoStates):
    """TRM (arXiv 2510.04871): one module for both states, gradient through the whole last round. No halting."""

    def __init__(self, config: LatentReasonerConfig) -> None:
        super().__init__(config)
        self.net = Stack(config)

    def _pair(self) -> tuple[Stack, Stack]:
        return self.net, self.net

    def forward(
        self, state: State, embedded: Tensor | None, positions: Rotation, segment: int, watch: Watch | None = None
    ) -> State:
        assert embedded is not None
        slow, fast = state
        rounds = self.config.updates
        for number in range(rounds):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number == rounds - 1):
                for _ in range(self.config.fast_updates):
                    fast = self._fast(fast, slow, embedded, positions)
                slow = self._slow(slow, fast, positions)
            if watch is not None:
                watch(slow)
        return slow, fast


RULES: dict[str, type[Recurrence]] = {"sr2": SelfRefinement, "plain": Plain, "hrm": Hierarchical, "trm": Tiny}
