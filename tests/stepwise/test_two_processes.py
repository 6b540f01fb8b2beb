"""Two processes share the work of one: the same groups, the same calls, one that writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from selfrefine.build import BuildSpec, build_model
from selfrefine.stepwise.credit import group_mean
from selfrefine.stepwise.reinforce import ReinforceSettings

GROUP = 4
Seen = tuple[dict[str, Any], dict[str, Any], Path]


@pytest.fixture(scope="module")
def seen(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What both processes saw, and the directory they wrote to."""
    out, models = tmp_path_factory.mktemp("out"), []
    for architecture in ("llama", "masked_llama"):
        models.append(str(tmp_path_factory.mktemp(architecture)))
        spec = BuildSpec(architecture=architecture, hidden_size=32, layers=1, heads=2, kv_heads=1, vocab_size=300)
        build_model(spec, ["what is it? a e"], Path(models[-1]), seed=0)
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        [*command, tiny, *models, str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (json.loads((out / f"seen-{rank}.json").read_text()) for rank in range(2))
    assert one["processes"] == 2
    return one, other, out


def test_without_weight_every_bit_is_trl_s_in_two_processes(seen: Seen) -> None:
    for each in seen[:2]:
        assert each["weightless"] == each["plain"] != each["credited"]
        assert any(norm > 0 for _, norm in each["plain"])


def test_unequal_numbers_of_open_rows_make_the_same_calls(seen: Seen) -> None:
    """Where weights are sharded, a process that makes no call, or a smaller one, lets the other wait for ever."""
    one, other, _ = seen
    calls = [(a["calls"], b["calls"]) for a, b in zip(one["rounds"], other["rounds"], strict=True)]
    assert len(calls) == 3
    assert all([rows for rows, _ in a] == [rows for rows, _ in b] for a, b in calls)
    assert any([opened for _, opened in a] != [opened for _, opened in b] for a, b in calls)
    assert one["sampled"] == other["sampled"]
    assert len(one["sampled"]) > 6 and max(one["sampled"]) == 6, "no more rows at once than those of the round itself"


def test_a_step_reward_is_asked_as_often_and_of_as_many_rows_in_both(seen: Seen) -> None:
    one, other = (each["stepped"] for each in seen[:2])
    assert one and [rows for rows, _ in one] == [rows for rows, _ in other]
    assert [opened for _, opened in one] != [opened for _, opened in other]


def test_groups_across_processes_are_those_of_one(seen: Seen) -> None:
    one, other, _ = seen
    for a, b in zip(one["rounds"], other["rounds"], strict=True):
        prompts, texts = a["prompts"] + b["prompts"], a["texts"] + b["texts"]
        assert len(prompts) == 12
        assert all(len(set(prompts[start : start + GROUP])) == 1 for start in range(0, 12, GROUP))
        outcome = [float(any(sign in p for sign in text)) for p, text in zip(prompts, texts, strict=True)]
        assert a["means"] == b["means"] == group_mean(torch.tensor(outcome), GROUP).tolist()
        assert a["credited"] == b["credited"]


def test_the_first_process_alone_writes_and_both_stop_together(seen: Seen) -> None:
    one, other, out = seen
    assert one["whole"]["logged"] == [1, 2, 3, 4, 1, 2, 3, 4] and other["whole"]["logged"] == []
    assert one["whole"]["stopped"] == other["whole"]["stopped"] == "step 3 of 4"
    assert one["whole"]["numbers"] == other["whole"]["numbers"]
    assert one["whole"]["there"] == other["whole"]["there"]
    assert {"model.safetensors", "tokenizer.json"} <= set(one["whole"]["there"])
    assert "training_args.bin" not in one["whole"]["there"]
    whole, stopped = (load_file(out / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_masked_diffusion_model_trains_in_two_processes(seen: Seen) -> None:
    one, other, out = seen
    assert one["masked"]["numbers"] == other["masked"]["numbers"]
    assert one["masked"]["numbers"]["branch tokens"] > 0
    uids = [sorted(a + b) for a, b in zip(one["masked"]["uids"], other["masked"]["uids"], strict=True)]
    assert uids == [list(range(12 * step, 12 * step + 12)) for step in range(3)]
    assert (out / "masked/model.safetensors").is_file()


def test_completions_that_cannot_be_shared_out_are_refused() -> None:
    settings = ReinforceSettings(prompts=3, group=4, accumulate=2)
    assert [settings.rows_of_a_process(count) for count in (1, 2, 3)] == [6, 3, 2]
    with pytest.raises(ValueError, match=r"prompts 3 × group 4 / accumulate 2 = 6 .* cannot be shared out to 4"):
        settings.rows_of_a_process(4)
