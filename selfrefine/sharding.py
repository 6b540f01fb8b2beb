"""Trainings whose processes share the weights out: PyTorch's FSDP2, put on by accelerate.

What is saved is what one process would save, so that a training goes on in any number of processes, sharded or not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engines.base import EngineError

_OPTIMISER_FILE, _SCHEDULER_FILE = "optimizer.pt", "scheduler.pt"
"""Trainer's own names."""

FSDP: Mapping[str, str] = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
"""The environment that makes accelerate shard by FSDP2: each of a model's layers, then the rest of it."""


class Sharded:
    """Beside a trainer class: trains as ever unless accelerate is told to shard; then saves are whole all the same."""

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() != "true":
            return
        import torch
        from accelerate import PartialState
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
        from torch.distributed.fsdp import MixedPrecisionPolicy

        state = self.accelerator.state  # type: ignore[attr-defined]
        if state.distributed_type == DistributedType.MULTI_CPU:
            # accelerate heeds the plugin on GPUs alone, and all that it does with one works on CPUs.
            state.fsdp_plugin = FullyShardedDataParallelPlugin()
            # Each new view of the state is filled from the other, as accelerate itself leaves them.
            PartialState().distributed_type = state.distributed_type = DistributedType.FSDP
            self.is_fsdp_enabled = True
        if self._is_sharded:
            state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")  # a file of accelerate's may say otherwise
            if state.mixed_precision == "bf16":
                # accelerate's own would add gradients up in bfloat16, and round the loss to it.
                state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32)

    @property
    def _is_sharded(self) -> bool:
        return bool(self.accelerator.is_fsdp2)  # type: ignore[attr-defined]

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        prepared = super()._prepare_for_training(*args, **kwargs)  # type: ignore[misc]
        if self._is_sharded:
            here, whole = held(self.model)  # type: ignore[attr-defined]
            rank, world = self.args.process_index, self.args.world_size  # type: ignore[attr-defined]
            if here == whole:
                raise EngineError(f"FSDP was asked for and process {rank} of {world} holds the whole model")
            print(f"process {rank} of {world} holds {here} of {whole} bytes of weights", flush=True)
        return prepared

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict:
            # Gathered weights are all tensors of their own; transformers writes one that is tied to another once.
            first: dict[int, str] = {}
            for name, weight in self.model.named_parameters(remove_duplicate=False):  # type: ignore[attr-defined]
                state_dict[name] = state_dict[first.setdefault(id(weight), name)]
        super()._save(output_dir, state_dict)  # type: ignore[misc]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._is_sharded:
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
            return
        keep = self.args.should_save  # type: ignore[attr-defined]
        write_states(self, output_dir, gathered(self.optimizer.state_dict(), keep))  # type: ignore[attr-defined]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not self._is_sharded:
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
            return
        state = read_states(self, checkpoint)
        self.optimizer.load_state_dict(shared_out(state, self.optimizer))  # type: ignore[attr-defined]


def write_states(trainer: Any, folder: str, whole: Mapping[str, Any]) -> None:
    """The first process writes the `whole` state of the optimiser, and that of the scheduler."""
    import torch

    if trainer.args.should_save:
        torch.save(whole, Path(folder) / _OPTIMISER_FILE)
        torch.save(trainer.lr_scheduler.state_dict(), Path(folder) / _SCHEDULER_FILE)


def read_states(trainer: Any, folder: str) -> Any:
    """Sets the scheduler to what was saved; returns the state of the optimiser, whole."""
    import torch

    trainer.lr_scheduler.load_state_dict(torch.load(Path(folder) / _SCHEDULER_FILE, weights_only=True))
    # Mapped, not read: each process takes its own part out of it.
    return torch.load(Path(folder) / _OPTIMISER_FILE, map_location="cpu", mmap=True, weights_only=True)


def held(model: Any) -> tuple[int, int]:
    """Bytes of the model's weights in this process, and in all of them together, each weight counted once."""
    from torch.distributed.tensor import DTensor

    here = whole = 0
    for weight in model.parameters():
        local = weight.to_local() if isinstance(weight, DTensor) else weight
        here += local.numel() * local.element_size()
        whole += weight.numel() * weight.element_size()
    return here, whole


def gathered(state: Mapping[str, Any], keep: bool) -> dict[str, Any]:
    """An optimiser's state as one process would have it. All processes call it; those that do not `keep` it get {}."""
    from torch.distributed.tensor import DTensor

    found: dict[Any, dict[str, Any]] = {}
    for number, of_weight in state["state"].items():
        for name, value in of_weight.items():
            one = value.full_tensor().cpu() if isinstance(value, DTensor) else value
            if keep:
                found.setdefault(number, {})[name] = one
    return {"state": found, "param_groups": state["param_groups"]} if keep else {}


def shared_out(state: Mapping[str, Any], optimiser: Any) -> dict[str, Any]:
    """What `gathered` returned, with this process's part of all that has the form of a sharded weight."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def part(value: Any, weight: Any) -> Any:
        if not isinstance(weight, DTensor) or getattr(value, "shape", None) != weight.shape:
            return value
        value = value.to(weight.device_mesh.device_type)
        return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)

    weights = dict(enumerate(_weights(optimiser)))
    parts = {
        number: {name: part(value, weights[number]) for name, value in of_weight.items()}
        for number, of_weight in state["state"].items()
    }
    return {"state": parts, "param_groups": state["param_groups"]}


def _weights(optimiser: Any) -> Iterator[Any]:
    for group in optimiser.param_groups:
        yield from group["params"]
