"""What a pass of a language model costs, for training and for writing; memory and files of both."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.cost import assumed
from pipelines.cost.sizes import BYTES, Size
from pipelines.cost.work import Phase, Precision


@dataclass(frozen=True, slots=True)
class Training:
    """How the parameters of a model are trained. `rank`: of LoRA, else all are. `dtype`: of the weights."""

    size: Size
    rank: int | None
    freeze_vision: bool
    checkpointing: bool
    dtype: str
    precision: Precision

    @property
    def trainable(self) -> int:
        """Parameters that change."""
        if self.rank is not None:
            return self.size.lora(self.rank)
        frozen = self.size.vision.parameters if self.size.vision and self.freeze_vision else 0
        return self.size.parameters - frozen

    def flops(self, tokens: float, context: float, judged: float, images: float) -> float:
        """Forward and backward, of `tokens` that see `context` each; the head reads `judged`.

        All parameters: 6 for each and token; LoRA: 4, as what is frozen needs no gradient of its own, and 6 for each of
        the adapters'. Attention has no weights: forward once, backward twice. Gradient checkpointing: the layers, but
        not the head, forward again.
        """
        products = self.size.forward(tokens, 0, judged)
        attention = self.size.forward(tokens, context, judged) - products
        again = int(self.checkpointing)
        if self.rank is None:
            total = 3 * (products + attention)
        else:
            total = 2 * products + 3 * attention + (6 + 2 * again) * tokens * self.trainable
        total += again * self.size.forward(tokens, context, 0)
        if self.size.vision is not None:
            seen = images * self.size.vision.forward()
            total += seen if self.rank is not None or self.freeze_vision else (3 + again) * seen
        return total

    def memory(self, tokens: float, judged: float, gpu: bool, images: float = 0) -> float:
        """Bytes of one device, for `tokens` in one pass: weights, gradients, Adam's averages, activations, logits."""
        size, weight = self.size, BYTES[self.dtype]
        own = 4 if self.rank is not None else weight
        states = float(size.parameters * weight + 3 * own * self.trainable)
        number = BYTES[self.precision]
        if self.precision != self.dtype:
            states += size.parameters * number  # autocast keeps a copy of the weights it has converted
        layer = number * (4 * size.hidden + 3 * size.attention + 4 * size.cached + 4 * size.intermediate) + (
            8 * size.hidden
        )
        held: float = layer + size.layers * number * size.hidden if self.checkpointing else size.layers * layer
        if size.vision is not None and self.rank is None and not self.freeze_vision:
            eye = size.vision
            held += images * eye.patches * eye.layers * number * 16 * eye.hidden / max(tokens, 1)
        logits = judged * size.vocabulary * (number + 8)
        return states + tokens * held + logits + (0 if gpu else assumed.PROCESS_BYTES)

    @property
    def checkpoint(self) -> float:
        """Bytes of what is written when it is over."""
        weights = self.size.parameters * BYTES[self.dtype] if self.rank is None else 4 * self.trainable
        return weights + files_beside(self.size)

    def saves(self, steps: float, every: int) -> float:
        """Bytes of the points that it resumes from, when most are there: two are kept while a third is written."""
        own = 4 if self.rank is not None else BYTES[self.dtype]
        count = min(3, max(0, -(-int(steps) // every) - 1))
        return count * (self.checkpoint + 2 * own * self.trainable)


def files_beside(size: Size) -> float:
    """Bytes of tokenizer, config and template."""
    return assumed.CHECKPOINT_BYTES + assumed.TOKEN_BYTES * size.vocabulary


@dataclass(frozen=True, slots=True)
class Writing:
    """How a model writes. `rows` are decoded together by each copy of it; a copy lies on `tensor` of the `gpus`.

    `block`, `steps`: of a masked-diffusion model's sampler, whose canvas is all of `most` tokens.
    """

    size: Size
    engine: str
    rows: int
    dtype: Precision
    gpus: int = 1
    tensor: int = 1
    block: int = 32
    steps: int = 16

    @property
    def copies(self) -> int:
        """Of the model, each with a part of the rows."""
        return max(1, self.gpus // self.tensor)

    def batches(self, count: float) -> float:
        """One after another, of `count` rows."""
        return math.ceil(count / (self.rows * self.copies))

    def answers(
        self, name: str, count: float, prompt: float, mean: float, most: float, images: float = 0, prompts: float = 1.0
    ) -> list[Phase]:
        """`count` answers of `mean` tokens, at most `most`, to prompts of `prompt` tokens, image included.

        `images`: that are opened. `prompts`: the share of answers whose prompt is read anew, the others share one.
        """
        if not self.size.causal:
            return [self._denoised(name, count, prompt, most)]
        reading = self.read(f"{name}: reading", count * prompts, prompt, images)
        return [reading, self._decoded(name, count, prompt, mean, most)]

    def read(self, name: str, count: float, tokens: float, images: float = 0, judged: float = 1) -> Phase:
        """`count` texts are read in one pass each batch, the head at `judged` of their tokens."""
        size = self.size
        eye = size.vision.forward() * images if size.vision else 0.0
        layers = size.layers + (size.vision.layers if size.vision and images else 0)
        return Phase(
            name,
            prompt=count * tokens,
            flops=count * size.forward(tokens, tokens, judged) + eye,
            moved=self.batches(count) * self.copies * self.weights,
            layers=self.batches(count) * layers,
            images=images,
            pixels=images * (size.vision.pixels if size.vision else 0),
            precision=self.dtype,
            engine=self.engine,
            gpus=self.gpus,
        )

    @property
    def weights(self) -> float:
        """Bytes that are read in a pass."""
        return (self.size.matrices + self.size.vocabulary * self.size.hidden) * BYTES[self.dtype]

    def _decoded(self, name: str, count: float, prompt: float, mean: float, most: float) -> Phase:
        size = self.size
        together = self.engine in ("transformers", "diffusion")
        each = min(most, mean * assumed.LONGEST) if together else mean
        passes = self.batches(count) * each
        # Rows that have ended go on beside those that have not.
        computed = count * each
        seen = prompt + each / 2
        heads = size.attention // size.cached
        copies = assumed.CACHE_COPIES[self.engine] + (2 * heads if together and heads > 1 else 0)
        cache = computed * seen * size.cache_numbers * BYTES[self.dtype] * copies
        return Phase(
            name,
            generated=count * mean,
            flops=computed * size.forward(1, seen, 1),
            moved=passes * self.copies * self.weights + cache,
            layers=passes * size.layers,
            precision=self.dtype,
            engine=self.engine,
            gpus=self.gpus,
        )

    def _denoised(self, name: str, count: float, prompt: float, most: float) -> Phase:
        size, length = self.size, prompt + most
        steps = most / self.block * self.steps
        passes = self.batches(count) * steps
        return Phase(
            name,
            prompt=count * prompt,
            generated=count * most,
            flops=count * steps * size.forward(length, length, self.block),
            moved=passes * self.copies * self.weights,
            layers=passes * size.layers,
            precision=self.dtype,
            engine="diffusion",
            gpus=self.gpus,
        )

    def memory(self, count: float, prompt: float, most: float, gpu: bool, reserved: float | None = None) -> float:
        """Bytes of one device: weights, keys and values. `reserved`: what vLLM takes, whatever it needs."""
        if reserved is not None:
            return reserved
        number = BYTES[self.dtype]
        length = (prompt + most) * min(self.rows, max(1.0, count))
        kept = length * self.size.cache_numbers if self.size.causal else length * 8 * self.size.intermediate
        logits = min(self.rows, max(1.0, count)) * self.size.vocabulary * 8
        weights = self.size.parameters * number / self.tensor
        return weights + kept * number + logits + (0 if gpu else assumed.PROCESS_BYTES)
