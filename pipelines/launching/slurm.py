"""A job for Slurm that runs a recipe in the processes of its `launch:` block."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import RunError
from pipelines.launching.settings import launch_settings
from pipelines.recipe import Recipe

_JOB = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={processes}
#SBATCH --gpus-per-node={processes}
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@600
# Each GPU gets one process; for CPUs alone remove the line on GPUs. Add what your cluster asks for: partition, account.
# Ten minutes before its time is up the run saves and stops. Submitted again, the same job goes on.
# {where} has to be a folder that all nodes share.
set -euo pipefail
cd {here}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
exec srun --cpus-per-task="${{SLURM_CPUS_PER_TASK:-1}}" {command}
"""


def write_job(recipe: Recipe, path: Path, overrides: Sequence[str], runs: Path) -> Path:
    """Writes `NAME.sbatch` into the working directory. Raises `RunError` where there is one, or stages want different
    numbers of processes."""
    wanted = {
        (each.processes, each.nodes)
        for stage in recipe.stages
        if hasattr(stage, "rows_of_a_process")
        for each in [launch_settings(recipe, stage)]
    }
    if len(wanted) > 1:
        raise RunError(f"{path}: stages want different numbers of processes, and a job has one; give all the same")
    if not wanted:
        raise RunError(f"{path}: no stage trains, so that one process will do: trivium run {path}")
    target = Path(f"{recipe.name}.sbatch")
    if target.exists():
        raise RunError(f"{target}: exists already; move it away to have it written anew")
    processes, nodes = wanted.pop()
    beside = Path(sys.executable).with_name("trivium")
    trivium = [str(beside)] if beside.exists() else [sys.executable, "-m", "pipelines.cli"]
    where = ["--runs", str(runs)] if runs != Path("runs") else []
    target.write_text(
        _JOB.format(
            name=recipe.name,
            nodes=nodes,
            processes=processes,
            here=shlex.quote(str(Path.cwd())),
            where=(runs / recipe.name).resolve(),
            command=shlex.join([*trivium, "run", str(path), *overrides, *where]),
        ),
        encoding="utf-8",
    )
    return target
