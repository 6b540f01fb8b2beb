"""What a stage does, in units that a machine can be held against: tokens, FLOPs, bytes, passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from pipelines.cost import assumed
from pipelines.cost.devices import Device

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a stage with one kind of work.

    `prompt`, `generated`, `trained`: tokens read, written, and gone through forwards and backwards. `flops`; `moved`:
    bytes of weights, keys and values; `layers`: passes through one layer, one after another; `pixels` of `images` that
    are opened. `gpus`: that take part, where there are so many.
    """

    name: str
    prompt: float = 0.0
    generated: float = 0.0
    trained: float = 0.0
    flops: float = 0.0
    moved: float = 0.0
    layers: float = 0.0
    images: float = 0.0
    pixels: float = 0.0
    precision: Precision = "float32"
    engine: str = "transformers"
    gpus: int = 1

    def times(self, number: float) -> Phase:
        """The same so many times over."""
        amounts = ("prompt", "generated", "trained", "flops", "moved", "layers", "images", "pixels")
        return replace(self, **{name: getattr(self, name) * number for name in amounts})

    def workers(self, device: Device) -> int:
        """GPUs, or cores, that do it: of cores all."""
        return min(device.count, self.gpus) if device.gpu else device.count

    def seconds(self, device: Device) -> float:
        """On the clock: the longest of computing, moving, and starting layers; and opening images, which waits."""
        workers = self.workers(device)
        scale = workers * (assumed.SCALING if device.gpu and workers > 1 else 1.0)
        peak = device.fp32 if self.precision == "float32" or not device.gpu else device.bf16
        computed = self.flops / (peak * assumed.MATRIX_SHARE * scale)
        moved = self.moved / (device.bandwidth * assumed.BANDWIDTH_SHARE * scale)
        started = self.layers * assumed.LAYER_SECONDS[self.engine]
        opened = (assumed.IMAGE_SECONDS * self.images + assumed.PIXEL_SECONDS * self.pixels) / (
            workers if device.gpu else 1
        )
        return max(computed, moved, started) + opened


@dataclass(frozen=True, slots=True)
class Work:
    """A stage's phases, the bytes of memory that one device needs, and the bytes on disk: kept, and at most.

    `notes`: what was assumed for it alone. `unknown`: why nothing can be said.
    """

    phases: Sequence[Phase] = ()
    memory: float | None = None
    kept: float = 0.0
    most: float = 0.0
    notes: Sequence[str] = field(default=())
    unknown: str | None = None

    @property
    def prompt(self) -> float:
        """Tokens that are read and not written."""
        return sum(phase.prompt for phase in self.phases)

    @property
    def generated(self) -> float:
        """Tokens that are written."""
        return sum(phase.generated for phase in self.phases)

    @property
    def trained(self) -> float:
        """Tokens of rows that are learnt from, prompts among them, once for each time."""
        return sum(phase.trained for phase in self.phases)

    @property
    def flops(self) -> float:
        """Of matrix products."""
        return sum(phase.flops for phase in self.phases)

    def seconds(self, device: Device) -> float:
        """On the clock."""
        return sum(phase.seconds(device) for phase in self.phases)

    def device_seconds(self, device: Device) -> float:
        """Seconds of GPUs, or of cores, that are taken up."""
        return sum(phase.seconds(device) * phase.workers(device) for phase in self.phases)
