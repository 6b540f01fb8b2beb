"""Does a loop over a pretrained model's layers help where cells of an answer depend on one another?

A small language model learns 4 by 4 sudoku with few empty cells; then, with its weights frozen, puzzles with many, by
plain LoRA or by LoRA inside a loop, with as many trained numbers. `lora-longer` trains for as much computation as the
loop. Each arm of each seed writes a file when it is done, and is not done again.

python -m benchmarks.refinement FOLDER        # about two hours on one core
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Decoding, Request, turns
from engines.looped.config import LoopSettings
from engines.settings import TransformersSettings
from eval.stats import mean_interval, paired_difference
from rewards.puzzles import sudoku
from selfrefine.build import BuildSpec, build_model
from selfrefine.latent.adapter.reflect import reflect
from selfrefine.latent.adapter.settings import ReflectSettings, depth_at
from selfrefine.sft import Example, SftSettings, fine_tune
from selfrefine.training import LoraSettings
from tasks.problem import Problem
from tasks.registry import load

SEEDS = (0, 1, 2)
LAYERS, SPAN, DEEPEST = 6, (2, 4), 4
SPEC = BuildSpec(
    architecture="llama", hidden_size=96, layers=LAYERS, heads=4, kv_heads=4, vocab_size=300, max_length=128,
    init_std=0.1,
)  # fmt: skip
BASE = SftSettings(steps=2000, batch_size=64, learning_rate=2e-3, save_every=200)
STEPS = 600
RATE = 2e-3
TRAIN, TEST = 12_000, 1000
ITERATIONS = range(9)
FEW, MANY = {"least_empty": 4, "most_empty": 7}, {"least_empty": 8, "most_empty": 10}


def longer() -> int:
    """Steps of plain LoRA that take as many layer passes as the loop's: forward, its losses' read-outs included.

    More than as much work, by about a sixth: nothing below the span needs a backward pass in the loop.
    """
    inside, behind = SPAN[1] - SPAN[0], LAYERS - SPAN[1]
    depths = [depth_at(step, STEPS, DEEPEST) for step in range(STEPS)]
    return round(sum((LAYERS + k * inside + (k - 1) * behind) / LAYERS for k in depths))


def loop_settings() -> ReflectSettings:
    # Three times the rank on a third of the layers; the gates are 192 numbers more.
    lora = LoraSettings(r=12, alpha=24)
    loop = LoopSettings(iterations=DEEPEST, layers=SPAN)
    return ReflectSettings(steps=STEPS, batch_size=64, learning_rate=RATE, loop=loop, lora=lora, save_every=100)


def lora_settings(steps: int) -> SftSettings:
    lora = LoraSettings(r=4, alpha=8)
    return SftSettings(steps=steps, batch_size=64, learning_rate=RATE, lora=lora, save_every=100)


def examples(problems: Sequence[Problem]) -> list[Example]:
    return [Example(turns(problem.question, None), problem.answer, None) for problem in problems]


def base(folder: Path) -> Path:
    """The model that all arms begin with."""
    trained, initial = folder / "base", folder / "initial"
    if not trained.exists():
        problems = load("sudoku", "train", size=TRAIN, **FEW).problems
        if not initial.exists():
            texts = [text for problem in problems for text in (problem.question, problem.answer)]
            build_model(SPEC, texts, initial, seed=0)
        fine_tune(examples(problems), str(initial), folder / "making", folder / "base-saves", BASE, seed=0)
        (folder / "making").rename(trained)
    return trained


def right(checkpoint: Path, problems: Sequence[Problem], iterations: int | None) -> list[float]:
    """1 or 0 for each problem, answered greedily."""
    from engines.transformers import TransformersEngine

    engine = TransformersEngine.open(TransformersSettings(batch_size=256, iterations=iterations), str(checkpoint))
    decoding = Decoding(max_new_tokens=24)
    requests = [Request(problem.id, turns(problem.question, None), decoding=decoding) for problem in problems]
    texts = [generation.text for generation in engine.generate(requests)]
    engine.close()
    scores = sudoku([""] * len(texts), texts, puzzle=[problem.columns["puzzle"] for problem in problems])
    return [float(score or 0) for score in scores]


def run(folder: Path) -> None:
    start = base(folder)
    train = examples(load("sudoku", "train", size=TRAIN, seed=1, **MANY).problems)
    test = load("sudoku", "test", size=TEST, **MANY).problems
    _keep(folder / "base.json", lambda: {"0": right(start, test, None)})
    for seed in SEEDS:
        for arm in ("lora", "loop", "lora-longer"):
            made = folder / f"{arm}-{seed}"

            def work(arm: str = arm, made: Path = made, seed: int = seed) -> dict[str, list[float]]:
                saves = made.with_suffix(".saves")
                if arm == "loop":
                    reflect(train, str(start), made, saves, loop_settings(), seed)
                    return {str(k): right(made, test, k) for k in ITERATIONS}
                fine_tune(train, str(start), made, saves, lora_settings(STEPS if arm == "lora" else longer()), seed)
                return {"0": right(made, test, None)}

            _keep(folder / f"{arm}-{seed}.json", work)


def _keep(file: Path, work: Callable[[], Mapping[str, Any]]) -> None:
    if not file.exists():
        found = work()
        file.with_suffix(".part").write_text(json.dumps(found))
        file.with_suffix(".part").rename(file)
        print(f"{file.stem}: " + ", ".join(f"{k}: {np.mean(v):.1%}" for k, v in found.items()), flush=True)


def table(folder: Path) -> str:
    """Accuracy of each arm over the seeds, and its paired difference to plain LoRA of as much computation."""

    def over_seeds(arm: str, k: str) -> Any:
        return np.mean([json.loads((folder / f"{arm}-{seed}.json").read_text())[k] for seed in SEEDS], axis=0)

    control = over_seeds("lora-longer", "0")
    problems = list(range(len(control)))
    arms = [("lora", "0"), ("lora-longer", "0"), *(("loop", str(k)) for k in ITERATIONS)]
    lines = [
        f"base: {np.mean(json.loads((folder / 'base.json').read_text())['0']):.1%}; {longer()} steps of lora-longer"
    ]
    for arm, k in arms:
        values = over_seeds(arm, k)
        accuracy = mean_interval(values, problems)
        difference = paired_difference(values, control, problems).estimate
        lines.append(
            f"{arm} K={k}: {accuracy.value:.1%} [{accuracy.low:.1%}, {accuracy.high:.1%}]; against lora-longer "
            f"{difference.value:+.1%} [{difference.low:+.1%}, {difference.high:+.1%}]"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    run(folder)
    print(table(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
