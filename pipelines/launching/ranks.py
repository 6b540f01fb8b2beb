"""Whether this process is one of several that a launcher started, by what the launcher put into the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pipelines.errors import RunError


@dataclass(frozen=True, slots=True)
class Ranks:
    """One of `world` processes of a launcher. `local` counts those of its own machine."""

    rank: int
    world: int
    local_rank: int
    local_world: int
    launcher: str
    address: str
    """Where the processes meet: a host, and a port on it that the launcher keeps for them."""
    port: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self | None:
        """None where nobody started several processes. Raises `RunError` where they could not find each other."""
        if int(environment.get("WORLD_SIZE", "1")) > 1 and "RANK" in environment:
            launcher, names = "torchrun", ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        # Only what srun starts has a step; a batch script has the number of tasks as well, and is none of them.
        elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            launcher, names = "Slurm", ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "")
        else:
            return None
        rank, world, local_rank, local_world = (int(environment.get(name, "0")) for name in names)
        if launcher == "Slurm":
            local_world = _tasks_of_node(environment, int(environment.get("SLURM_NODEID", "0")))
        if not environment.get("MASTER_ADDR") or not environment.get("MASTER_PORT"):
            raise RunError(
                f"{launcher} started {world} processes, and MASTER_ADDR and MASTER_PORT do not say where they meet; "
                "`trivium launch slurm RECIPE` writes a job that sets them"
            )
        return cls(
            rank, world, local_rank, local_world, launcher, environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        )


def _tasks_of_node(environment: Mapping[str, str], node: int) -> int:
    """Slurm writes the tasks of all nodes as `4(x2),3`."""
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", environment["SLURM_STEP_NUM_TASKS"]).split(","):
        tasks, _, times = part.partition("(x")
        counts += [int(tasks)] * int(times.rstrip(")") or 1)
    return counts[node]
