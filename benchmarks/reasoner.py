"""The recurrent reasoner against the same mathematics written plainly: speed, memory, losses; and boards a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.plain_reasoner import train, weights_of
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.fit import train_reasoner
from selfrefine.latent.grids import boards_of, format_of
from selfrefine.latent.model import LatentReasoner
from selfrefine.latent.precision import bfloat16_products
from selfrefine.latent.rules import any_answer, sudoku_rule
from selfrefine.latent.settings import RolloutSettings
from selfrefine.latent.solve import Rule, Solved, solve
from tasks.registry import load

BATCH, UPDATES, SEGMENTS = 32, 8, 2
TIMES = 3
RATE, DECAY = 1e-4, 0.1
EASY = {"side": 4, "least_empty": 4, "most_empty": 12}


class Way(NamedTuple):
    """How our side is run; the plain one is in float32 and never compiled."""

    compiled: bool = False
    products: bool = False
    """Whether matrices are multiplied in bfloat16."""

    def arithmetic(self) -> AbstractContextManager[None]:
        return bfloat16_products() if self.products else nullcontext()


class Sides:
    """One rollout of each kind, each on weights of its own that begin equal."""

    def __init__(self, hidden_size: int, heads: int, cells: int, way: Way) -> None:
        config = LatentReasonerConfig(
            seq_len=cells, hidden_size=hidden_size, heads=heads, updates=UPDATES, segments=SEGMENTS
        )
        torch.manual_seed(0)
        self._boards = torch.randint(1, 11, (BATCH, cells)), torch.randint(2, 11, (BATCH, cells))
        self._model, self._config, self._way = LatentReasoner(config), config, way
        self._weights = weights_of(self._model.named_parameters())
        self._optimiser = RolloutSettings(learning_rate=RATE, weight_decay=DECAY).optimiser_for(self._model)
        if way.compiled:
            self._model.recurrence.compile()

    def ours(self) -> list[float]:
        with self._way.arithmetic():
            return _rollout(self._model, self._optimiser, *self._boards)

    def plain(self) -> list[float]:
        heads, theta = self._config.heads, self._config.rope_theta
        losses, _ = train(
            self._weights, self._model.z_init, [self._boards], SEGMENTS, UPDATES, heads, theta, RATE, DECAY, 0.99
        )
        return losses


def speed_up(hidden_size: int, heads: int, cells: int, way: Way) -> tuple[float, float, float]:
    """How many times as many rollouts a second as the plain loop, the median of pairs in turns; seconds of ours; and
    the largest relative difference of a loss.

    Raises `AssertionError` where the losses differ by more than rounding does.
    """
    sides = Sides(hidden_size, heads, cells, way)
    first = torch.tensor([sides.ours(), sides.plain()])
    apart = float(((first[0] - first[1]) / first[1]).abs().max())
    assert apart < (1e-2 if way.products else 1e-4), first
    pairs = [(_seconds(sides.ours), _seconds(sides.plain)) for _ in range(TIMES)]
    return median(b / a for a, b in pairs), median(a for a, _ in pairs), apart


def peak_memory(hidden_size: int, heads: int, cells: int, plain: bool) -> int:
    """MiB by which two rollouts raise the memory of a process, which should have done nothing before."""
    sides = Sides(hidden_size, heads, cells, Way())
    before = _peak()
    for _ in range(2):
        sides.plain() if plain else sides.ours()
    return _peak() - before


def boards_per_second(directory: Path) -> Iterator[tuple[str, float, float, float]]:
    """How boards may stop, boards a second, the share solved, and segments a board: 4 by 4 sudokus, a reasoner that
    was trained on others for a minute or two and goes through four times its alignments."""
    sizes = {"train": 4000, "test": 1024}
    learnt, asked = (load("sudoku", split, size=size, **EASY).problems for split, size in sizes.items())
    config = LatentReasonerConfig(*format_of(learnt), hidden_size=128, heads=4, updates=4, segments=4)
    settings = RolloutSettings(steps=1600, batch_size=64, learning_rate=1e-3, warmup_steps=50, weight_decay=0.1)
    train_reasoner(boards_of(learnt, config)[0], config, directory / "reasoner", directory / "saves", settings, seed=0)
    model = LatentReasoner.from_pretrained(directory / "reasoner")
    boards, _ = boards_of(asked, config)
    inputs, labels = torch.from_numpy(boards.inputs), torch.from_numpy(boards.labels)
    for name, rule in {"none": None, "fixed_point": any_answer, "sudoku": sudoku_rule(config)}.items():

        def answer(rule: Rule | None = rule) -> list[Solved]:
            return [solve(model, rows, 4 * config.segments, rule) for rows in inputs.split(128)]

        seconds = min(_seconds(answer) for _ in range(TIMES))
        solved = answer()
        right = torch.cat([each.right(rows)[-1] for each, rows in zip(solved, labels.split(128), strict=True)])
        used = torch.cat([each.used for each in solved])
        yield name, len(inputs) / seconds, float(right.float().mean()), float(used.float().mean())


def _peak() -> int:
    # Not getrusage, whose peak a new process has from the one that began it. Linux alone.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


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
