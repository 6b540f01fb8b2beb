"""Trainings whose gradients and optimiser state DeepSpeed shares out to the processes (ZeRO, stages 1 and 2).

What is saved is what one process would save, as with FSDP (`sharding.py`).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selfrefine.sharding import read_states, write_states

USE, FILE = "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_CONFIG_FILE"
"""The environment by which accelerate is told to use DeepSpeed, and with what: a file, or JSON in base 64."""
_AUTO = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
OWNED: Mapping[str, str] = {
    "train_batch_size": "batch_size",
    "train_micro_batch_size_per_gpu": "batch_size and accumulate",
    "gradient_accumulation_steps": "accumulate",
    "gradient_clipping": "trl.max_grad_norm",
    "optimizer": "learning_rate and trl.optim",
    "scheduler": "trl.lr_scheduler_type",
    **dict.fromkeys(("bf16", "fp16", "amp", "torch_autocast"), "precision"),
}
"""What DeepSpeed's file could say and a stage's settings say already."""


def is_asked() -> bool:
    """Whether this process was started to train by DeepSpeed."""
    return os.environ.get(USE, "").lower() == "true"


def arguments(bf16: bool, gpu: bool) -> dict[str, Any]:
    """Arguments of Trainer in a process that was started to train by DeepSpeed; the rest goes by the environment."""
    given = os.environ.get(FILE)
    config = json.loads(Path(given).read_text(encoding="utf-8")) if given else {"zero_optimization": {"stage": 2}}
    config = {name: value for name, value in config.items() if name not in OWNED}
    config |= {"zero_allow_untested_optimizer": True, **dict.fromkeys(_AUTO, "auto")}
    if bf16:
        # As without DeepSpeed: weights, their gradients and what is sent stay as they are. Its own `bf16` rounds them.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    os.environ[FILE] = base64.urlsafe_b64encode(json.dumps(config).encode()).decode()
    # Where CPUs are asked for accelerate leaves DeepSpeed out; where nothing is, it takes those that there are.
    return {"bf16": False, "use_cpu": False, "ddp_backend": None if gpu else "gloo"}


class Zero:
    """Beside a trainer class: trains as ever unless DeepSpeed is used; then saves are whole all the same."""

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        used = self.is_deepspeed_enabled  # type: ignore[attr-defined]
        its_own = None if used else resume_from_checkpoint  # DeepSpeed would look for a save of its own form.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, its_own)  # type: ignore[misc]
        if used:
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_deepspeed_enabled:  # type: ignore[attr-defined]
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
            return
        keep = self.args.should_save  # type: ignore[attr-defined]
        write_states(self, output_dir, gathered(self.optimizer.optimizer, keep))  # type: ignore[attr-defined]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self.is_deepspeed_enabled:  # type: ignore[attr-defined]
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
            return
        share_out(read_states(self, checkpoint), self.optimizer.optimizer)  # type: ignore[attr-defined]


def gathered(zero: Any, keep: bool) -> dict[str, Any]:
    """The state of DeepSpeed's optimiser as one process would have it. All call it; those that do not `keep` get {}."""
    import torch

    found: dict[int, dict[str, Any]] = {}
    groups = []
    for group, flat, weights in _groups(zero):
        own = {key: value for key, value in group.items() if key != "params"}
        groups.append({**own, "params": list(weights)})
        for number, weight in weights.items():
            for name, value in zero.optimizer.state[flat].items():
                # Each weight has a count of steps of its own: one that all shared would be raised by all.
                parted = getattr(value, "shape", None) == flat.shape
                whole = _whole(value, weight) if parted else torch.tensor(float(value))
                if keep:
                    found.setdefault(number, {})[name] = whole.cpu()
    return {"state": found, "param_groups": groups} if keep else {}


def _whole(part: Any, weight: Any) -> Any:
    """What all processes together have for one weight, of which each has a part in its row for all weights."""
    import torch

    # Where the weight is: an offloaded part is in main memory, and GPUs gather from their own.
    row = torch.zeros(weight.numel(), dtype=part.dtype, device=weight.device)
    for mine, its in _places(weight):
        row[its] = part[mine]
    torch.distributed.all_reduce(row)
    return row.reshape(weight.shape)


def share_out(state: Mapping[str, Any], zero: Any) -> None:
    """Gives DeepSpeed's optimiser this process's part of what `gathered` returned."""
    import torch

    # DeepSpeed's Adam on CPUs, which accelerate takes where the optimiser is offloaded, wants plain numbers.
    counts_by_itself = hasattr(zero.optimizer, "ds_opt_adam")
    for (group, flat, weights), saved in zip(_groups(zero), state["param_groups"], strict=True):
        group.update({key: value for key, value in saved.items() if key != "params"})
        mine = zero.optimizer.state[flat]
        for number, weight in weights.items():
            for name, value in state["state"].get(number, {}).items():
                if value.ndim == 0:  # how many steps there were
                    mine[name] = int(value) if counts_by_itself else value.clone()
                    continue
                part = mine.setdefault(name, torch.zeros_like(flat))
                for here, its in _places(weight):
                    part[here] = value.flatten()[its].to(part.device)


def _places(weight: Any) -> Iterator[tuple[slice, slice]]:
    """Where a part of a weight is in this process's row, and in the weight; nothing where it has none."""
    if (place := weight._hp_mapping) is not None:
        here, its = place.get_hp_fragment_address(), place.lp_fragment_address
        yield slice(here.start, here.start + here.numel), slice(its.start, its.start + its.numel)


def _groups(zero: Any) -> Iterator[tuple[dict[str, Any], Any, dict[int, Any]]]:
    """(group, this process's part of its weights in a row, whole weights by their number in the optimiser)."""
    number = 0
    flats = zero.single_partition_of_fp32_groups
    for group, flat, weights in zip(zero.optimizer.param_groups, flats, zero.bit16_groups, strict=True):
        yield group, flat, dict(enumerate(weights, number))
        number += len(weights)
