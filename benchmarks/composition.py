"""Does the composable split measure what it says? A small transformer on chains of four operators, from nothing.

A chain starts from a value; each operator does one of a few permutations of the values. In the world `sense`, which one
is told by the operator and the one before it, so pairs of neighbours are the modules; in `alone`, by the operator, so
they are finer than the graph of pairs says. The model reads the chain operator by operator and says the value after
each; what counts is the last one.

python -m benchmarks.composition [FOLDER]
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from eval.composition.files import ABOUT, TEST, TRAIN, split_files
from eval.composition.report import CompositionReport, composition_report
from eval.trial import Extract, Rewards, Trial
from tasks.draw import seed64

OPERATORS, VALUES, SENSES, LENGTH = 8, 6, 4, 4
COMBOS, TRAIN_COMBOS = 1_000, 180
STEPS, BATCH, WIDTH, HEADS, LAYERS, RATE = 400, 64, 64, 4, 2, 3e-3
WARM_UP = 50
SEEDS = (0, 1, 2)
WORLDS = ("sense", "alone")
_GRAPH = "factors: chain\n"


@dataclass(frozen=True)
class World:
    """`sense[before][operator]` is the permutation that an operator does; `before` is `OPERATORS` at the start."""

    sense: list[list[list[int]]]

    @classmethod
    def draw(cls, kind: str, seed: int) -> World:
        generator = random.Random(seed64("chains", kind, seed))
        acts = [generator.sample(range(VALUES), VALUES) for _ in range(SENSES)]
        rows = [[generator.choice(acts) for _ in range(OPERATORS)] for _ in range(OPERATORS + 1)]
        return cls(rows if kind == "sense" else [rows[0]] * (OPERATORS + 1))

    def values(self, chain: Sequence[int], start: int) -> list[int]:
        """The value after each operator."""
        found, before, value = [], OPERATORS, start
        for operator in chain:
            value = self.sense[before][operator][value]
            found.append(value)
            before = operator
        return found


class Reader(nn.Module):
    """A causal transformer: value, operator, value, operator, … to the next value."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(VALUES + OPERATORS, WIDTH)
        self.place = nn.Embedding(2 * LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VALUES)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] to [B, T, VALUES]."""
        size = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(size)
        hidden = self.token(tokens) + self.place(torch.arange(size))
        logits: Tensor = self.head(self.norm(self.layers(hidden, mask=mask, is_causal=True)))
        return logits


def table(world: World, path: Path, seed: int) -> None:
    """Every start for each of `COMBOS` chains, as the task `table` reads it."""
    generator = random.Random(seed64("chains of a table", seed))
    chains = generator.sample(list(product(range(OPERATORS), repeat=LENGTH)), COMBOS)
    with path.open("w", encoding="utf-8") as file:
        for chain, start in product(chains, range(VALUES)):
            said = " ".join(map(str, chain))
            row = {
                "id": f"{said} of {start}", "question": f"{said} of {start}", "chain": said, "start": start,
                "answer": str(world.values(chain, start)[-1]),
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tokens(world: World, problems: Sequence[dict[str, Any]]) -> Tensor:
    """[B, 1 + 2 · LENGTH]: the start, then each operator and the value after it."""
    found = []
    for problem in problems:
        chain = [int(operator) for operator in problem["chain"].split()]
        steps = zip(chain, world.values(chain, problem["start"]), strict=True)
        found.append([problem["start"], *(token for operator, value in steps for token in (VALUES + operator, value))])
    return torch.tensor(found)


def fit(sequences: Tensor, seed: int, steps: int) -> Reader:
    """A model trained to say the value after each operator."""
    torch.manual_seed(seed)
    model = Reader()
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / WARM_UP) * max(0.05, 1 - step / steps)
    )
    for _ in range(steps):
        batch = sequences[torch.randint(len(sequences), (BATCH,))]
        loss = nn.functional.cross_entropy(model(batch[:, :-1])[:, 1::2].flatten(0, 1), batch[:, 2::2].flatten())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def said(model: Reader, sequences: Tensor) -> list[int]:
    """The last value that the model says, with its own values before in place of the true ones."""
    read = sequences[:, :1]
    for place in range(LENGTH):
        read = torch.cat([read, sequences[:, 1 + 2 * place : 2 + 2 * place]], 1)
        read = torch.cat([read, model(read)[:, -1:].argmax(-1)], 1)
    found: list[int] = read[:, -1].tolist()
    return found


def measured(kind: str, seed: int, folder: Path, steps: int = STEPS) -> CompositionReport:
    """Split, trained and tested: the report of one seed of a world. Files go to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    world = World.draw(kind, seed)
    table(world, folder / "chains.jsonl", seed)
    (folder / "graph.yaml").write_text(_GRAPH, encoding="utf-8")
    split_files(folder / "graph.yaml", str(folder / "chains.jsonl"), folder / "split", seed, TRAIN_COMBOS)
    model = fit(tokens(world, rows(folder / "split" / TRAIN)), seed, steps)
    tests = rows(folder / "split" / TEST)
    answers = said(model, tokens(world, tests))
    trials = [trial(kind, problem, answer) for problem, answer in zip(tests, answers, strict=True)]
    return composition_report(trials, folder / "split" / ABOUT)


def trial(label: str, problem: dict[str, Any], value: int) -> Trial:
    right = str(value) == problem["answer"]
    return Trial(
        label=label, suite="chains", suite_digest="", problem_id=problem["id"], cluster=problem["id"], sample=0, seed=0,
        prompt_sha="", completion=str(value), finish="stop", extract=Extract(strict=str(value), flexible=str(value)),
        reward=Rewards(strict=float(right), flexible=float(right)), outcome="correct" if right else "wrong",
    )  # fmt: skip


def main(folder: Path) -> None:
    for kind in WORLDS:
        for seed in SEEDS:
            print(f"seed {seed}, {measured(kind, seed, folder / f'{kind}-{seed}').text()}\n", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with TemporaryDirectory() as temporary:
            main(Path(temporary))
