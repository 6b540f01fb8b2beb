"""What can be known of a training in several processes before it begins."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipelines.errors import RunError
from pipelines.launching.command import shown
from pipelines.launching.config_file import by_accelerate, strategy_of
from pipelines.launching.ranks import Ranks
from pipelines.launching.settings import LaunchSettings, launch_settings

if TYPE_CHECKING:
    from pipelines.plan import Step
    from pipelines.recipe import Recipe
    from pipelines.stage import StageSettings


def problems(recipe: Recipe, stage: StageSettings) -> Iterator[str]:
    """One line for each thing that is wrong with how a stage would be launched; nothing for one that trains nothing."""
    if not hasattr(stage, "rows_of_a_process"):
        return
    settings, ranks = launch_settings(recipe, stage), Ranks.of(os.environ)
    world = ranks.world if ranks else settings.world
    try:
        stage.rows_of_a_process(world)
    except ValueError as error:
        yield f"stages.{stage.name}: {error}"
    try:
        strategy = strategy_of(settings)
    except RunError as error:
        yield str(error)
        return
    if world > 1 and strategy not in stage.strategies:
        yield (
            f"stages.{stage.name}: {stage.kind} is trained with the whole model in each process, not by "
            f"launch.strategy {strategy}; give it a block of its own, launch: {{processes: {settings.processes}}}"
        )
    elif world > 1 and strategy == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        yield "launch.strategy: deepspeed is not installed; pip install 'trivium-reasoning[deepspeed]'"


def commands(steps: Iterable[Step]) -> Iterator[str]:
    """For each training in several processes that is due, the command that starts them."""
    ranks = Ranks.of(os.environ)
    for step, settings in _due(steps):
        name = step.leg.label + step.link.name
        if ranks is not None:
            yield f"{name}: in the {ranks.world} processes that {ranks.launcher} has started"
        elif settings.nodes > 1:
            yield f"{name}: in {settings.world} processes; {_elsewhere(settings)}"
        elif settings.world > 1:
            yield f"{name}: {shown(settings, step.leg.root, name)}"


def check_machine(steps: Iterable[Step]) -> None:
    """Raises `RunError` where this machine cannot start the processes of the trainings that are due."""
    ranks = Ranks.of(os.environ)
    for _, settings in _due(steps):
        here = ranks.local_world if ranks else settings.processes
        if ranks is None and settings.nodes > 1:
            raise RunError(_elsewhere(settings))
        if ranks is not None and by_accelerate(settings):
            raise RunError(f"launch.config is for the launcher that a run starts; this one runs under {ranks.launcher}")
        if here == 1:
            continue
        if line := too_few_gpus(here, ranks):
            raise RunError(line)
        if by_accelerate(settings) and _gpus() == 0:
            way_out = "" if (strategy := strategy_of(settings)) == "ddp" else f", and give launch.strategy: {strategy}"
            raise RunError(
                "launch.config: without GPUs `accelerate launch` starts one process and shards nothing, whatever the "
                f"file says; leave it out{way_out}, and torchrun starts {here}"
            )


def too_few_gpus(processes: int, ranks: Ranks | None) -> str | None:
    """What to say where so many processes on this machine do not get a GPU each; None where they do, or train on CPUs.

    `ranks`: of this process, where a launcher has started them already.
    """
    gpus = _gpus()
    if not 0 < gpus < processes or (ranks is not None and has_gpu_of_its_own(ranks)):
        return None
    cpus = "CUDA_VISIBLE_DEVICES= in the environment to train on CPUs"
    if ranks is None:
        return (
            f"launch.processes: {processes} processes want a GPU each and this machine has {gpus}; give "
            f"launch.processes={gpus}, or {cpus}"
        )
    return (
        f"{ranks.launcher} started {processes} processes on {socket.gethostname()}, which want a GPU each, and there "
        f"are {gpus}; let it start {gpus} there, or set {cpus}"
    )


def has_gpu_of_its_own(ranks: Ranks) -> bool:
    """Whether each of several processes of a machine is shown one GPU, as by Slurm with `--gpus-per-task=1`."""
    return ranks.local_world > 1 and "CUDA_VISIBLE_DEVICES" in os.environ and _gpus() == 1


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _due(steps: Iterable[Step]) -> Iterator[tuple[Step, LaunchSettings]]:
    for step in steps:
        if step.reason and hasattr(step.link.settings, "rows_of_a_process"):
            yield step, launch_settings(step.leg.recipe, step.link.settings)


def _elsewhere(settings: LaunchSettings) -> str:
    return (
        f"launch.nodes {settings.nodes}: one machine cannot start processes on another; `trivium launch slurm RECIPE` "
        "writes a job, or start `torchrun … -m pipelines.cli run RECIPE` on each"
    )
