"""The cost model against runs: `python -m benchmarks.cost RUN [...]` for folders of finished runs, else the section of
benchmarks.run, which makes a short run of its own and adds what others published.

A ratio is estimate / measured. Seconds on the clock are those of the run as it was, with whatever ran beside it; those
of a run that is made here are the processor's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipelines.chain import expand
from pipelines.cost.devices import Device, device, processor
from pipelines.cost.estimate import estimates
from pipelines.cost.models import Training
from pipelines.cost.sizes import known, of_config
from pipelines.cost.work import Phase, Work
from pipelines.manifest import Manifest
from pipelines.recipe import Recipe, load_recipe, validate
from pipelines.source import Source


@dataclass(frozen=True, slots=True)
class Compared:
    """A stage: what was reckoned and what was measured. `tokens` are read and written ones; None where not recorded."""

    name: str
    estimate: Work
    seconds: tuple[float, float]
    tokens: tuple[float, float] | None
    memory: tuple[float, float] | None
    disk: tuple[float, float]


def of_run(root: Path, machine: Device) -> Iterator[Compared]:
    """The finished stages of a run, without reports."""
    recipe = load_recipe(root / "recipe.yaml")
    links = expand(recipe)
    found, _ = estimates(recipe, links, machine)
    for place in [root / f"seed-{seed}" for seed in recipe.seeds] or [root]:
        for link in links:
            manifest = Manifest.read(place / link.name)
            if manifest is not None and link.kind != "report" and not found[link.name].unknown:
                label = f"{place.name}/" if recipe.seeds else ""
                yield compared(f"{label}{link.name}", found[link.name], place / link.name, manifest, machine)


def compared(name: str, work: Work, directory: Path, manifest: Manifest, machine: Device) -> Compared:
    """One stage, from its directory."""
    memory = None if work.memory is None else (work.memory, manifest.peak_memory_mib * 2.0**20)
    disk = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
    tokens = tokens_of(directory, manifest)
    ours = work.generated if manifest.kind == "reinforce" else work.prompt + work.generated
    said = None if tokens is None else (ours, tokens)
    return Compared(name, work, (work.seconds(machine), manifest.seconds), said, memory, (work.kept, disk))


def tokens_of(directory: Path, manifest: Manifest) -> float | None:
    """Tokens read and written by an evaluation, or written in rollouts and branches; None where not recorded."""
    if manifest.kind == "reinforce":
        return float(manifest.numbers["generated tokens"] or 0)
    total, seen = 0.0, False
    for path in directory.glob("*/trials.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            trial = json.loads(line)
            total += trial["prompt_tokens"] + trial["completion_tokens"]
            seen = True
    return total if seen else None


@dataclass(frozen=True, slots=True)
class Published:
    """What somebody else measured, and what is reckoned of it: both in the unit `unit`."""

    what: str
    on: str
    unit: str
    estimate: float
    published: float

    @property
    def ratio(self) -> float:
        """Of the two."""
        return self.estimate / self.published


TEXT = 250
"""Tokens of question and answer of a row of LLaVA's tuning data, which nobody gives: our guess for its exchanges."""


def published() -> Iterator[Published]:
    """SRF (arXiv 2510.10487), d1 (arXiv 2504.12216), SR² (arXiv 2510.08222), and speeds that prime-rl gives."""
    for rows, hours, what in ((665_000, 56, "SRF: LLaVA-1.5-7B, 665k rows"), (865_000, 96, "SRF: 865k rows")):
        phase = tuning(rows)
        machine = device("8xh100-nvl")
        yield Published(what, "8 H100 NVL", "GPU hours", Work([phase]).device_seconds(machine) / 3600, hours)
    llada = load_recipe(
        Path("recipes/llada-8b-countdown.yaml"),
        ["model.path=GSAI-ML/LLaDA-8B-Instruct", "stages.reinforce.step_credit.credit=outcome"],
    )
    for name in ("8xa100", "8xh100"):
        hours = work_of(llada, "reinforce", device(name)).seconds(device(name)) / 3600
        yield Published("d1: LLaDA-8B, 5,000 steps", f"8 {name[2:].upper()}", "hours", hours, 24)
    credit = load_recipe(
        Path("recipes/llada-8b-countdown.yaml"),
        ["model.path=GSAI-ML/LLaDA-8B-Instruct", "stages.reinforce.step_credit.gate=advantage"],
    )
    hours = work_of(credit, "reinforce", device("8xh20")).seconds(device("8xh20")) / 3600
    yield Published("SAPO: LLaDA-8B, step credit", "8 H20", "hours", hours, 72)
    sudoku = load_recipe(Path("recipes/sr2-sudoku-extreme.yaml"))
    for name in ("8xa100", "8xh100"):
        hours = work_of(sudoku, "recur", device(name)).seconds(device(name)) / 3600
        yield Published("SR²: sudoku, 78,128 steps", f"8 {name[2:].upper()}", "hours", hours, 1)
    for model, rank, length, speed in (
        ("Qwen/Qwen3-0.6B", None, 16384, 11_900),
        ("Qwen/Qwen3-0.6B", 16, 16384, 13_300),
        ("Qwen/Qwen3-0.6B", None, 8192, 26_000),
        ("Qwen/Qwen3-4B", 16, 16384, 6_230),
    ):
        how = Training(of_config(known()[model]), rank, False, True, "bfloat16", "bfloat16")
        phase = Phase("", trained=length, flops=how.flops(length, length, length, 0), precision="bfloat16")
        kind = "full" if rank is None else "LoRA"
        what = f"prime-rl: {model[5:]}, {kind}, {length // 1024}k"
        yield Published(what, "H100", "tokens/s", length / phase.seconds(device("h100")), speed)


def tuning(rows: float) -> Phase:
    """LLaVA-1.5-7B in its own setting: all but the vision encoder is trained, one epoch, gradient checkpointing."""
    how = Training(of_config(known()["llava-hf/llava-1.5-7b-hf"]), None, True, True, "float32", "bfloat16")
    assert how.size.vision is not None
    length = how.size.vision.tokens + TEXT
    flops = how.flops(rows * length, length, rows * length, rows)
    return Phase("tuning", trained=rows * length, flops=flops, precision="bfloat16", gpus=8)


def work_of(recipe: Recipe, stage: str, machine: Device) -> Work:
    """One stage's."""
    return estimates(recipe, expand(recipe), machine)[0][stage]


SHORT = (
    "stages.base.steps=20", "stages.reinforce.steps=4", "stages.reflect.steps=12",
    "data.labelled.take=40", "data.test.take=100",
)  # fmt: skip
LONG_ENOUGH = ("base", "reinforce", "reflect", "evaluate", "report")
"""Stages of the quickstart that can be cut short: proposals of a model that learnt for 20 steps cannot be used."""


def short_run(directory: Path) -> Iterator[tuple[str, float, float]]:
    """(stage, estimate, seconds of the processor) of the quickstart, cut short and run here, each stage warmed up."""
    from pipelines import runner
    from pipelines.plan import Selection

    source = Source.read(Path("recipes/quickstart.yaml"))
    stages = [each for each in source.data["stages"] if each.get("name", each["kind"]) in LONG_ENOUGH]
    recipe = validate(Source({**source.data, "stages": stages}, "quickstart").override(SHORT))
    found, _ = estimates(recipe, expand(recipe), processor())
    measured: dict[str, float] = {}
    for name in ("once", "twice"):  # the first imports
        for link in expand(recipe)[:-1]:
            before = time.process_time()
            runner.run(recipe, directory / name, Selection(only=link.name), lambda line: None)
            measured[link.name] = time.process_time() - before
    for name, seconds in measured.items():
        yield name, found[name].seconds(processor()), seconds


def show(runs: Mapping[str, Path]) -> None:
    """Tables of finished runs and of what was published."""
    machine = processor()
    console = Console(width=160)
    for name, root in runs.items():
        table = Table("stage", "seconds", "measured", "ratio", "tokens", "memory", "disk", title=name, box=None)
        for each in of_run(root, machine):
            ours, theirs = each.seconds
            pairs = (pair or (0.0, 0.0) for pair in (each.tokens, each.memory, each.disk))
            others = (f"{a / b:.2f}" if b else "" for a, b in pairs)
            table.add_row(each.name, f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.2f}", *others)
        console.print(table)
    table = Table("published", "on", "unit", "estimate", "published", "ratio", box=None)
    for row in published():
        table.add_row(row.what, row.on, row.unit, f"{row.estimate:,.3g}", f"{row.published:,g}", f"{row.ratio:.2f}")
    console.print(table)
    print(f"reckoned for {machine.title}, {machine.fp32 / 1e9:.0f} GFLOP/s each")


if __name__ == "__main__":
    show({place: Path(place) for place in sys.argv[1:]})
