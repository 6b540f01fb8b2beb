"""Measures what docs/performance.md shows, and prints one table: `python -m benchmarks.run [SECTION ...]`.

Run it from the repository's root with OMP_NUM_THREADS=1 and nothing beside. Each section has a process of its own, so
that no engine finds the traces of another. All is measured in one run, so its ratios are of one machine at one time.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from rich.console import Console
from rich.table import Table

from benchmarks import (
    commands,
    cost,
    credit,
    engines_compared,
    evaluation,
    overhead,
    precision,
    reasoner,
    replicas,
    sampler,
    samples,
    verification,
)
from engines.settings import EngineSettings
from pipelines import machine
from rewards.pool import close_shared
from selfrefine.stepwise.settings import StepCredit

Result = TypeVar("Result")


class Row(NamedTuple):
    """One line of the table."""

    what: str
    measured: str
    goal: str = ""


def measure_commands(directory: Path) -> Iterator[Row]:
    for arguments, goal in (
        (["--help"], "< 0.5 s"),
        (["rewards", "list"], "< 0.5 s"),
        (["run", "recipes/quickstart.yaml", "--plan"], "< 1.5 s"),
    ):
        wall, processor, torch = commands.seconds_of(*arguments)
        shown = f"{wall:.2f} s ({processor:.2f} s of the processor), torch {'IS' if torch else 'not'} imported"
        yield Row(f"trivium {' '.join(arguments)}", shown, f"{goal}, no torch")


def measure_overhead(directory: Path) -> Iterator[Row]:
    """Twice in one process: the first run imports pyarrow, scipy and pandas."""
    overhead.run_around_delayed_engine(directory / "imports", images=16, problems=16, delay=0.0)
    yield Row("pipeline, once per process", f"{time.process_time():.1f} s of the processor, all imports included")
    before = time.process_time()
    beyond, engine = overhead.run_around_delayed_engine(directory / "run", images=512, problems=2000, delay=0.25)
    processor, wall = time.process_time() - before, sum(beyond.values())
    each = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in beyond.items())
    inside = f"{engine.waited:.0f} s in the engine"
    shown = f"{processor / engine.waited:.1%} ({processor:.2f} s of the processor beside {inside}"
    yield Row(
        f"pipeline beside the engine, {engine.requests} requests",
        f"{shown}); on the clock {wall / engine.waited:.1%} ({each} s)",
        "< 3 %",
    )


def measure_engines(directory: Path) -> Iterator[Row]:
    sizes = ((128, 4), (512, 8))
    if reason := engines_compared.why_no_vllm():
        yield Row("vLLM against transformers", f"skipped: {reason}")
        return
    transformers = _alone(engines_compared.transformers_settings(), sizes)
    vllm = _alone(engines_compared.vllm_settings(), sizes)
    for (hidden_size, layers), ours, theirs in zip(sizes, transformers, vllm, strict=True):
        for what, a, b in zip(("generates", "scores"), ours, theirs, strict=True):
            label = f"vLLM {what}, hidden size {hidden_size}, {layers} layers"
            yield Row(label, f"{a / b:.2f} times as fast as transformers ({b:.1f} s against {a:.1f} s)")


def measure_orders(directory: Path) -> Iterator[Row]:
    if reason := engines_compared.why_no_vllm():
        yield Row("questions grouped by image", f"skipped: {reason}")
        return
    taken = engines_compared.orders(directory, images=8)
    shown = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in taken.items())
    yield Row("vLLM, 16 questions on each of 8 images", shown)


def measure_samples(directory: Path) -> Iterator[Row]:
    for what, plain, shared in samples.gains(directory):
        shown = f"shared {plain / shared:.2f} times as fast ({shared:.2f} s against {plain:.2f} s)"
        yield Row(f"{samples.SAMPLES} samples a prompt: {what}", shown)


def measure_precision(directory: Path) -> Iterator[Row]:
    float32 = precision.seconds_per_step(directory, "float32")
    bfloat16 = precision.seconds_per_step(directory, "bfloat16")
    shown = f"float32 {float32:.2f} s, bfloat16 {bfloat16:.2f} s: {bfloat16 / float32:.1f} times as long"
    yield Row("training step of the quickstart's model, batch of 16", shown)


def measure_sampler(directory: Path) -> Iterator[Row]:
    for what, textbook, ours in sampler.rows():
        shown = f"{textbook / ours:.1f} times as fast as a textbook one ({ours:.1f} s against {textbook:.1f} s)"
        yield Row(f"denoising loop, {what}", f"{shown}, same tokens", "3 times")


def measure_verification(directory: Path) -> Iterator[Row]:
    plain, ours = verification.easy()
    shown = f"{plain / ours:.0f} times as fast as plain math-verify ({ours:.2f} s against {plain:.2f} s)"
    yield Row("maths, 1,000 easy answers", shown, "5 times")
    yield Row("maths, 1,000 mixed answers, 10 pathological", f"{verification.mixed():.1f} s", "15 s on 2 cores")
    close_shared()  # a process of a pool ends without its exit handlers


def measure_credit(directory: Path) -> Iterator[Row]:
    ratio = credit.overhead(directory)
    yield Row("step credit of weight 0 against TRL's trainer", f"{ratio:.3f} times as long", "1.03 times")
    for masked, kinds in ((False, ("progress", "segments")), (True, ("progress", "segments", "one_step"))):
        for kind in kinds:
            shares = [
                credit.branch_share(directory, StepCredit(credit=kind), reward, masked)
                for reward in (credit.even, credit.seldom)
            ]
            what = f"branches of `{kind}`, {'masked-diffusion' if masked else 'autoregressive'} model"
            shown = "half of the answers right {:+.0%}, one in eight {:+.0%}".format(*shares)
            yield Row(what, f"{shown} of a step", "15 %")


def measure_reasoner(directory: Path) -> Iterator[Row]:
    cells = 81
    for hidden_size, heads in ((128, 4), (512, 8)):
        for way in (reasoner.Way(*chosen) for chosen in itertools.product((False, True), repeat=2)):
            ratio, seconds, apart = reasoner.speed_up(hidden_size, heads, cells, way)
            kind = "compiled" if way.compiled else "not compiled"
            how = f"{kind}, products in {'bfloat16' if way.products else 'float32'}"
            shown = f"{ratio:.2f} times the plain loop ({seconds:.1f} s a rollout, losses {apart:.0e} apart)"
            yield Row(f"reasoner, hidden size {hidden_size}, {how}: training steps", shown, ">= 1.5")
        ours, plain = (_in_own_process(reasoner.peak_memory, hidden_size, heads, cells, kind) for kind in (False, True))
        yield Row(f"reasoner, hidden size {hidden_size}: memory of training", f"{ours} MiB, the plain loop {plain} MiB")
    for stop, speed, right, used in reasoner.boards_per_second(directory):
        shown = f"{speed:,.0f} boards a second, {right:.1%} right, {used:.1f} segments each"
        yield Row(f"reasoner, 4 by 4 sudokus, early_stop {stop}", shown)


def measure_evaluation(directory: Path) -> Iterator[Row]:
    for reward, ratio in evaluation.ratios(directory).items():
        label = f"evaluation against generation alone, {evaluation.PROBLEMS} answers graded by {reward}"
        yield Row(label, f"{ratio:.3f} times as long", "1.1 times")
    close_shared()


def measure_replicas(directory: Path) -> Iterator[Row]:
    ideal = replicas.BATCHES * replicas.DELAY
    first = None
    for workers, seconds in replicas.seconds_with():
        first = first or seconds
        shown = f"{seconds:.1f} s for {ideal:.0f} s of work each: {first / seconds:.1%} of one worker's efficiency"
        yield Row(f"{workers} workers that wait {replicas.DELAY:g} s for each 64 requests", shown, ">= 90 %")
    for count, processor, memory in replicas.coordination():
        shown = f"{processor:.1f} s of the driver's processor, {processor / count * 1e6:.0f} s a million; {memory} MiB"
        yield Row(f"{count:,} requests to workers that take no time", shown, "memory flat")


def measure_cost(directory: Path) -> Iterator[Row]:
    for stage, estimate, seconds in cost.short_run(directory):
        shown = f"{estimate / seconds:.2f} of {seconds:.1f} s of the processor"
        yield Row(f"cost of the quickstart's {stage}, cut short: estimate", shown)
    for each in cost.published():
        shown = f"{each.ratio:.2f} of {each.published:,g} {each.unit} ({each.estimate:,.3g})"
        yield Row(f"{each.what}, on {each.on}: estimate", shown)


SECTIONS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "commands": measure_commands,
    "overhead": measure_overhead,
    "engines": measure_engines,
    "orders": measure_orders,
    "samples": measure_samples,
    "precision": measure_precision,
    "sampler": measure_sampler,
    "reasoner": measure_reasoner,
    "credit": measure_credit,
    "verification": measure_verification,
    "evaluation": measure_evaluation,
    "cost": measure_cost,
    "replicas": measure_replicas,
}


def main(chosen: list[str]) -> int:
    if unknown := [name for name in chosen if name not in SECTIONS]:
        print(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    before = os.getloadavg()[0]
    table = Table("what", "measured", "goal", title="Trivium benchmarks", box=None)
    for name in chosen or SECTIONS:
        for row in _in_own_process(_rows, name):
            table.add_row(*row)
            print(f"{row.what}: {row.measured}", file=sys.stderr, flush=True)  # a later section may yet fail
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table, markup=False)
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    versions = machine.package_versions()
    shown = ", ".join(
        f"{name} {versions[name]}" for name in ("python", "torch", "transformers", "vllm") if name in versions
    )
    print(f"{machine.device()}, {os.cpu_count()} cores, OMP_NUM_THREADS {threads}, {shown}")
    print(f"load average over a minute: {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    return 0


def _rows(name: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(sys.stderr):
        return list(SECTIONS[name](Path(directory)))


def _alone(settings: EngineSettings, sizes: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    """One engine, measured in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        return _in_own_process(engines_compared.generate_and_score, Path(directory), settings, sizes, 16)


def _in_own_process(function: Callable[..., Result], *arguments: object) -> Result:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
