"""The state of an optimiser that DeepSpeed keeps, whole and in parts; DeepSpeed itself is not needed for that."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from selfrefine import zero


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """A group of one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def offloaded(steps: int | torch.Tensor | None, **further: Any) -> Any:
    """As ZeRO looks with two weights, whose states are kept in one row."""
    weights, begin = [torch.zeros(2, 2), torch.zeros(3)], 0
    for weight in weights:
        place = SimpleNamespace(start=begin, numel=weight.numel())
        weight._hp_mapping = SimpleNamespace(  # type: ignore[attr-defined]
            get_hp_fragment_address=lambda place=place: place,
            lp_fragment_address=SimpleNamespace(start=0, numel=weight.numel()),
        )
        begin += weight.numel()
    flat = torch.zeros(begin)
    state = {} if steps is None else {"step": steps, "exp_avg": torch.arange(7.0)}
    optimiser = SimpleNamespace(param_groups=[{"lr": 0.1, "params": [flat]}], state={flat: state}, **further)
    return SimpleNamespace(optimizer=optimiser, single_partition_of_fp32_groups=[flat], bit16_groups=[weights])


@pytest.mark.parametrize("steps", [3, torch.tensor(3.0)], ids=["offloaded", "as torch counts"])
def test_a_save_of_an_offloaded_optimiser_is_that_of_any(steps: int | torch.Tensor) -> None:
    saved = zero.gathered(offloaded(steps), keep=True)
    assert saved["param_groups"] == [{"lr": 0.1, "params": [0, 1]}]
    assert [saved["state"][number]["step"] for number in (0, 1)] == [torch.tensor(3.0)] * 2
    assert saved["state"][0]["step"] is not saved["state"][1]["step"]
    assert saved["state"][0]["exp_avg"].tolist() == [[0, 1], [2, 3]]
    assert saved["state"][1]["exp_avg"].tolist() == [4, 5, 6]

    for further, kind in (({}, torch.Tensor), ({"ds_opt_adam": None}, int)):
        zero.share_out(saved, new := offloaded(None, **further))
        (state,) = new.optimizer.state.values()
        assert state["step"] == 3 and type(state["step"]) is kind
        assert state["exp_avg"].tolist() == list(range(7))


def test_parts_in_main_memory_are_gathered_where_the_weights_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL knows nothing of main memory."""
    devices = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda row: devices.append(row.device.type))
    weight = torch.zeros(7, device="meta")
    weight._hp_mapping = None  # type: ignore[attr-defined]
    zero._whole(torch.zeros(7), weight)
    assert devices == ["meta"]
