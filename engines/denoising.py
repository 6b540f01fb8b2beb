"""The loop that turns an all-masked canvas into text: semi-autoregressive, most confident positions first.

Blocks go left to right. In each step one forward pass reads prompt and canvas; at every masked position of the current
block a token is drawn, and those drawn with the highest probability stay. Source: LLaDA, arXiv 2502.09992; the loop
knows a model only as a function.

The noise is a function of the row's key and of the step, not a stream. So neither batching, nor order, nor the step
from which a row is resumed changes a token.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(ids (B, P + L), attention mask (B, P + L), positions (n,)) → logits (B, n, V) at those positions."""
Draw = Literal["inverse", "gumbel"]

HIDDEN = -1
"""In a step map: not revealed."""
_ENTRIES = 1 << 24  # of a (positions, vocabulary) table in float64 at a time: 128 MiB


@dataclass(frozen=True, slots=True)
class Schedule:
    """`length` positions in blocks of `block_length`, each revealed in `steps_per_block` steps, T steps in all.

    Where the steps do not divide a block, its first steps reveal one position more (as LLaDA and d1 do).
    """

    length: int
    block_length: int
    steps_per_block: int

    def __post_init__(self) -> None:
        if min(self.length, self.block_length, self.steps_per_block) < 1:
            raise ValueError("length, block_length and steps_per_block must be at least 1")
        if self.length % self.block_length:
            raise ValueError(f"a canvas of {self.length} tokens does not divide into blocks of {self.block_length}")
        if self.steps_per_block > self.block_length:
            raise ValueError(f"a block of {self.block_length} tokens has no use for {self.steps_per_block} steps")

    @property
    def steps(self) -> int:
        """T."""
        return self.length // self.block_length * self.steps_per_block

    @property
    def boundaries(self) -> list[int]:
        """The steps at which an inner block begins."""
        return list(range(self.steps_per_block, self.steps, self.steps_per_block))

    def block(self, step: int) -> slice:
        """The positions that the step works on."""
        start = step // self.steps_per_block * self.block_length
        return slice(start, start + self.block_length)

    def revealed(self, step: int) -> int:
        """How many positions the step reveals."""
        each, more = divmod(self.block_length, self.steps_per_block)
        return each + (step % self.steps_per_block < more)


Key = tuple[int, int]
"""What the noise of a row is made from: its seed, and the number of the branch (0: the row itself)."""


@dataclass(slots=True)
class Canvases:
    """N rows on their way: `ids` (N, L), `step_map` (N, L) with the step that revealed a position, or `HIDDEN`.

    `starts`: steps that each row has behind it when the loop begins. `guesses`: step → (N, L), what the canvas would be
    if everything were filled in at once before that step; rows that were not at work then have the mask there.
    """

    prompts: Sequence[Sequence[int]]
    ids: Tensor
    step_map: Tensor
    starts: list[int]
    keys: Sequence[Key]
    guesses: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def blank(
        cls, prompts: Sequence[Sequence[int]], length: int, mask_id: int, keys: Sequence[Key], device: str = "cpu"
    ) -> Canvases:
        """All masked."""
        shape = (len(prompts), length)
        return cls(
            prompts,
            torch.full(shape, mask_id, device=device),
            torch.full(shape, HIDDEN, dtype=torch.int16, device=device),
            [0] * len(prompts),
            keys,
        )

    def at(self, rows: Sequence[int], steps: Sequence[int], mask_id: int, keys: Sequence[Key]) -> Canvases:
        """The chosen rows as they were after so many steps. A row may be chosen more than once."""
        places = torch.tensor(rows, dtype=torch.long, device=self.ids.device)
        ids, step_map = self.ids[places], self.step_map[places]
        behind = torch.tensor(steps, device=ids.device)[:, None]
        there = (step_map != HIDDEN) & (step_map < behind)
        return Canvases(
            [self.prompts[row] for row in rows],
            torch.where(there, ids, mask_id),
            torch.where(there, step_map, HIDDEN),
            list(steps),
            keys,
        )


@dataclass(slots=True)
class Denoiser:
    """Runs canvases to their end with one model.

    Args:
        end_ids: tokens that end a completion. A row with one of them in its finished blocks takes no further steps:
            what would be revealed later is cut off anyway, and has no influence on what was revealed before.
        banned_ids: never drawn; the mask itself never is either.
        temperature: 0 takes the likeliest token.
        draw: `inverse` needs one random number for a position, `gumbel` one for each token of the vocabulary (as LLaDA
            and d1 do); both draw from softmax(logits / temperature).
        batch_size: most rows in one forward pass.

    `passes` and `tokens` count rows through the model and positions revealed.
    """

    forward: Forward
    schedule: Schedule
    mask_id: int
    pad_id: int
    end_ids: Collection[int] = ()
    banned_ids: Sequence[int] = ()
    temperature: float = 0.0
    draw: Draw = "inverse"
    batch_size: int = 64
    passes: int = 0
    tokens: int = 0

    @torch.no_grad()
    def run(self, canvases: Canvases, guess_at: Collection[int] = ()) -> Canvases:
        """Reveals what is masked, in place. One loop serves all rows: each enters at the step it has reached.

        `guess_at`: steps before which the model's best guess at the whole canvas is kept.
        """
        ends = torch.tensor(sorted(self.end_ids), dtype=torch.long, device=canvases.ids.device)
        for step in guess_at:
            canvases.guesses[step] = torch.full_like(canvases.ids, self.mask_id)
        at_work = self._unfinished(canvases, list(range(len(canvases.starts))), ends)
        for step in range(min(canvases.starts, default=0), self.schedule.steps):
            rows = [row for row in at_work if canvases.starts[row] <= step]
            for start in range(0, len(rows), self.batch_size):
                self._step(canvases, rows[start : start + self.batch_size], step, step in guess_at)
            if (step + 1) % self.schedule.steps_per_block == 0:
                at_work = self._unfinished(canvases, at_work, ends)
        return canvases

    def _unfinished(self, canvases: Canvases, rows: list[int], ends: Tensor) -> list[int]:
        """Rows without an end token in a finished block, and with something left to reveal."""
        if not rows:
            return []
        known = canvases.step_map[rows] != HIDDEN
        whole = known.view(len(rows), -1, self.schedule.block_length).all(-1)
        whole = whole.repeat_interleave(self.schedule.block_length, 1)
        over = (torch.isin(canvases.ids[rows], ends) & whole).any(1) | known.all(1)
        return [row for row, done in zip(rows, over.tolist(), strict=True) if not done]

    def _step(self, canvases: Canvases, rows: list[int], step: int, guess: bool) -> None:
        prompts = [canvases.prompts[row] for row in rows]
        canvas, step_map = canvases.ids[rows], canvases.step_map[rows]
        block = self.schedule.block(step)
        ids, attention = joined(prompts, canvas, self.pad_id)
        width = ids.shape[1] - canvas.shape[1]
        wanted = torch.arange(canvas.shape[1], device=ids.device) if guess else torch.arange(block.start, block.stop)
        logits = self.forward(ids, attention, wanted.to(ids.device) + width)
        if guess:
            guessed = canvas.clone()
            guessed[step_map == HIDDEN] = self._allowed(logits[step_map == HIDDEN]).argmax(-1)
            canvases.guesses[step][rows] = guessed
            logits = logits[:, block]
        hidden = step_map[:, block] == HIDDEN
        drawn = torch.full_like(canvas[:, block], self.mask_id)
        confidence = torch.full(drawn.shape, -torch.inf, dtype=torch.float64, device=ids.device)
        drawn[hidden], confidence[hidden] = self._drawn(logits[hidden], self._noise(canvases, rows, step, hidden))
        count = self.schedule.revealed(step)
        # Stable, so that equal confidences are told apart by position and not by the machine.
        order = confidence.sort(dim=1, descending=True, stable=True).indices[:, :count]
        chosen = torch.zeros_like(hidden).scatter_(1, order, True) & hidden
        canvas[:, block] = torch.where(chosen, drawn, canvas[:, block])
        step_map[:, block] = torch.where(chosen, step, step_map[:, block])
        canvases.ids[rows], canvases.step_map[rows] = canvas, step_map
        self.passes += len(rows)
        self.tokens += int(chosen.sum())

    def _allowed(self, logits: Tensor) -> Tensor:
        banned = torch.tensor(sorted({self.mask_id, *self.banned_ids}), device=logits.device)
        return logits.index_fill(-1, banned, -torch.inf)

    def _noise(self, canvases: Canvases, rows: list[int], step: int, hidden: Tensor) -> Callable[[int], Tensor]:
        """Uniform numbers for the hidden positions: (n,) or (n, V), made only when they are asked for."""

        def numbers(vocabulary: int) -> Tensor:
            size = hidden.shape[1] * vocabulary
            drawn = np.stack([uniforms(canvases.keys[row], step, size) for row in rows])
            table = torch.from_numpy(drawn).view(*hidden.shape, vocabulary)
            return table.to(hidden.device)[hidden].squeeze(-1) if vocabulary == 1 else table.to(hidden.device)[hidden]

        return numbers

    def _drawn(self, raw: Tensor, noise: Callable[[int], Tensor]) -> tuple[Tensor, Tensor]:
        """(n, V) → tokens (n,) and their log-probabilities at temperature 1, without noise or bans (n,)."""
        logits = self._allowed(raw)
        if self.temperature == 0:
            tokens = logits.argmax(-1)
        elif self.draw == "gumbel":
            tokens = gumbel_draw(logits, noise(logits.shape[-1]), self.temperature)
        else:
            uniform = noise(1)
            rows = max(1, _ENTRIES // logits.shape[-1])
            parts = zip(torch.split(logits, rows), torch.split(uniform, rows), strict=True)
            tokens = torch.cat([inverse_draw(part, numbers, self.temperature) for part, numbers in parts])
        picked = logits.gather(-1, tokens[:, None]).squeeze(-1)
        return tokens, picked.double() - raw.logsumexp(-1).double()


def joined(prompts: Sequence[Sequence[int]], canvas: Tensor, pad_id: int) -> tuple[Tensor, Tensor]:
    """Prompts, padded on the left to one length, before the canvases (B, L): ids and attention mask (B, P + L)."""
    width = max(len(prompt) for prompt in prompts)
    padded = torch.tensor([[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts], dtype=torch.long)
    seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    ids = torch.cat([padded.to(canvas.device), canvas], 1)
    return ids, torch.cat([seen.to(canvas.device), torch.ones_like(canvas)], 1)


def uniforms(key: Key, step: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1): a function of the arguments alone (Philox, counter-based)."""
    seed, branch = key
    generator = np.random.Philox(key=[seed % 2**64, branch % 2**64], counter=[0, 0, 0, step])
    return np.random.Generator(generator).random(count)


def inverse_draw(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """(n, V), (n,) → (n,): a draw from softmax(logits / temperature) by its distribution function, in float64."""
    cumulated = (logits.double() / temperature).softmax(-1).cumsum(-1)
    total = cumulated[:, -1:]
    point = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, point, right=True).squeeze(-1)


def gumbel_draw(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """(n, V), (n, V) → (n,): argmax of exp(logits) / (−log u)^temperature, in float64 (LLaDA's sampler)."""
    return (logits.double() - temperature * uniform.log().neg().log()).argmax(-1)


def completion(ids: Sequence[int], end_ids: Collection[int]) -> tuple[list[int], bool]:
    """A row of a finished canvas up to its first end token, that one included, and whether there was one."""
    for place, token in enumerate(ids):
        if token in end_ids:
            return list(ids[: place + 1]), True
    return list(ids), False
