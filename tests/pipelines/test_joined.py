"""What a process of a launcher decides by what the launcher shows it."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from pipelines.errors import RunError
from pipelines.launching import joined
from pipelines.launching.checks import too_few_gpus
from pipelines.launching.ranks import Ranks

SLURM = Ranks(5, 16, 5, 8, "Slurm", "first", 29500)
WORK = {"root": "run", "name": "tune", "port": 29501, "environment": {}}


@pytest.mark.parametrize(
    ("shown", "gpus", "local_rank", "line"),
    [
        ("0", 1, "0", None),  # each its own: --gpus-per-task=1
        ("0,1,2,3,4,5,6,7", 8, "5", None),
        ("", 0, "5", None),
        ("0,1", 2, "5", "which want a GPU each, and there are 2; let it start 2 there, or set CUDA_VISIBLE_DEVICES="),
        (None, 1, "5", "and there are 1; let it start 1 there"),
    ],
)
def test_a_process_of_a_launcher_takes_the_gpu_that_it_is_shown(
    shown: str | None, gpus: int, local_rank: str, line: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    _, environment = joined._worker(SLURM, WORK)
    assert (environment["LOCAL_RANK"], environment["RANK"], environment["LOCAL_WORLD_SIZE"]) == (local_rank, "5", "8")
    said = too_few_gpus(8, SLURM)
    assert said is None if line is None else said is not None and said.startswith("Slurm started 8 ") and line in said


def test_a_node_with_too_few_gpus_is_named_by_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process sees those of the first node alone."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(joined, "_not_shared", lambda ranks, work: None)
    store = torch.distributed.HashStore()
    monkeypatch.setattr(joined, "_store", lambda ranks: store)
    lead = joined.Lead(SLURM, store)
    for work in ({**WORK, "timeout": 60}, {"over": 2}):
        lead.say(work)
    assert joined.follow(SLURM) == 2
    assert "which want a GPU each, and there are 4; let it start 4 there" in str(lead._trouble())


@pytest.mark.parametrize(
    ("launcher", "given", "cores", "expected"),
    [
        ("Slurm", {"SLURM_CPUS_PER_TASK": "8"}, 8, "8"),  # bound, as srun does: its own cores are all that it sees
        ("Slurm", {"SLURM_CPUS_PER_TASK": "8"}, 64, "8"),
        ("Slurm", {"SLURM_CPUS_PER_TASK": "8"}, 1, "1"),  # of the job, and srun was not told
        ("Slurm", {}, 64, "8"),
        ("torchrun", {"SLURM_CPUS_PER_TASK": "64"}, 64, "8"),  # one task, in which torchrun started eight
        ("Slurm", {"SLURM_CPUS_PER_TASK": "8", "OMP_NUM_THREADS": "3"}, 8, "3"),
    ],
)
def test_a_process_of_a_launcher_has_its_share_of_the_cores(
    launcher: str, given: dict[str, str], cores: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    _, environment = joined._worker(replace(SLURM, launcher=launcher), WORK)
    assert environment["OMP_NUM_THREADS"] == expected


def test_the_first_process_is_waited_for_as_long_as_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a training has begun, too."""
    store = torch.distributed.HashStore()
    monkeypatch.setattr(joined, "_store", lambda ranks: store)
    ranks = Ranks(1, 2, 1, 2, "torchrun", "first", 29500)
    joined.Lead(ranks, store).wait(0.1)
    with pytest.raises(RunError, match=r"heard nothing of the first process for 0\.1 seconds \(launch.timeout\)"):
        joined.follow(ranks)
