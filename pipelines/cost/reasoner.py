"""What a recurrent reasoner costs: one block, many times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.cost import assumed
from pipelines.cost.work import Phase, Precision

if TYPE_CHECKING:
    from selfrefine.latent.settings import RolloutSettings
    from selfrefine.latent.spec import ReasonerSpec

SIGNS = 12
"""Tokens of a reasoner whose alphabet is not given."""


class Reasoner:
    """A reasoner on boards of so many cells. Blocks are counted as calls of a whole stack of `layers`."""

    def __init__(self, spec: ReasonerSpec, cells: int, alphabet: str | None) -> None:
        self.spec = spec
        self.cells = cells
        self.length = cells + spec.prefix_tokens
        self.vocabulary = SIGNS if alphabet is None else len(alphabet) + 1

    @property
    def stack(self) -> int:
        """Parameters of one stack, all in matrices."""
        return self.spec.layers * (4 * self.spec.hidden_size**2 + 3 * self.spec.hidden_size * self.spec.inner_size)

    @property
    def parameters(self) -> int:
        """All of them."""
        spec = self.spec
        stacks = 2 if spec.recurrence == "hrm" or (spec.recurrence == "sr2" and not spec.shared) else 1
        table = self.length if spec.positions == "learned" else 0
        return stacks * self.stack + spec.hidden_size * (2 * self.vocabulary + spec.prefix_tokens + table)

    @property
    def calls(self) -> tuple[int, int]:
        """Of the stack in a segment: without a gradient, and with one."""
        spec = self.spec
        if spec.recurrence in ("sr2", "plain"):
            return 0, spec.updates
        each = spec.fast_updates + 1
        if spec.recurrence == "hrm":
            return spec.updates * each - 2, 2
        return (spec.updates - 1) * each, each

    def forward(self) -> float:
        """FLOPs of one call for one board."""
        attention = 4 * self.spec.layers * self.spec.hidden_size * self.length
        return self.length * (2 * self.stack + attention)

    def head(self) -> float:
        """FLOPs of reading off an answer."""
        return 2 * self.length * self.spec.hidden_size * self.vocabulary

    def trained(self, settings: RolloutSettings, precision: Precision, gpus: int) -> Phase:
        """All rollouts of a training."""
        spec = self.spec
        rollouts = settings.steps / settings.rollout_steps(spec.segments)
        free, graded = self.calls
        judged = 1 if settings.alignment == "last" else spec.segments
        calls = (spec.segments - judged) * (free + graded) + judged * free
        again = 1 if settings.gradient_checkpointing else 0  # forward once more, in the backward pass
        flops = (calls + (3 + again) * judged * graded) * self.forward() + 3 * judged * self.head()
        passes = calls + (1 + again + assumed.BACKWARD_LAYERS) * judged * graded
        return Phase(
            "training",
            trained=rollouts * settings.batch_size * self.cells,
            flops=rollouts * settings.batch_size * flops,
            moved=rollouts * passes * 4 * self.parameters * gpus,
            layers=rollouts * passes * spec.layers,
            precision=precision,
            engine="latent",
            gpus=gpus,
        )

    def solved(self, name: str, boards: float, rows: int, segments: int | None, precision: Precision) -> Phase:
        """`boards` filled in, `rows` at a time."""
        number = segments or self.spec.segments
        calls = number * sum(self.calls)
        batches = -(-boards // rows)
        return Phase(
            name,
            prompt=boards * self.cells,
            generated=boards * self.cells,
            flops=boards * (calls * self.forward() + number * self.head()),
            moved=batches * calls * 4 * self.parameters,
            layers=batches * calls * self.spec.layers,
            precision=precision,
            engine="latent",
        )

    def memory(self, settings: RolloutSettings, gpus: int, gpu: bool) -> float:
        """Bytes of one device: states of the optimiser, and activations of what a gradient goes through."""
        spec = self.spec
        held = spec.segments if settings.alignment in ("sum", "whole") else 1
        layer = 4 * (10 * spec.hidden_size + 4 * spec.inner_size)
        places, blocks = settings.batch_size / gpus * self.length, held * self.calls[1] * spec.layers
        kept = blocks * 4 * spec.hidden_size + layer if settings.gradient_checkpointing else blocks * layer
        activations = places * kept
        return 20 * self.parameters + activations + (0 if gpu else assumed.PROCESS_BYTES)

    def solving(self, rows: int, gpu: bool) -> float:
        """Bytes while `rows` boards are filled in: one block's activations."""
        layer = 4 * (10 * self.spec.hidden_size + 4 * self.spec.inner_size)
        return 4 * self.parameters + rows * self.length * layer + (0 if gpu else assumed.PROCESS_BYTES)
