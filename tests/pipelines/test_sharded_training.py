"""Processes that share a model out make what one makes, and their saves are those of one."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.pipelines.test_launch import BUILD, TUNE, losses, near, planned, weights, write

SHARDED = "launch={processes: 2, strategy: fsdp}"
ZERO = "launch={processes: 2, strategy: deepspeed}"
with_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
SEES = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "vocab_size": 300,
    "image_size": 32,
    "vision_hidden_size": 32,
    "vision_layers": 1,
}


def seen(folder: Path) -> dict[str, Any]:
    """The parts of a recipe that make a vision-language model and give it pictures."""
    (photos := folder / "photos").mkdir()
    for number in range(8):
        Image.new("RGB", (32, 32), (number * 30, 90, 200 - number * 20)).save(photos / f"{number}.png")
    rows = ({"image": f"{i % 8}.png", "question": f"which is {i}?", "answer": "ab" * (i % 3 + 1)} for i in range(16))
    (folder / "pictures.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {"task": "table", "source": str(folder / "pictures.jsonl"), "images": str(photos)}
    return {"model": {"build": SEES}, "data": {"labelled": table}}


@pytest.mark.parametrize(
    ("sees", "stage"),
    [
        (False, {"lora": {"r": 2}, "trl": {"gradient_checkpointing": True}}),
        (False, {"steps": 2, "precision": "bfloat16"}),
        (True, {"steps": 2, "freeze_vision": True}),
    ],
)
def test_two_that_share_a_model_train_as_one(
    sees: bool, stage: dict[str, Any], real_children: Any, tmp_path: Path
) -> None:
    untied = {"model": {"build": {**BUILD, "layers": 2, "tie_word_embeddings": False}}}
    recipe = write(tmp_path, {**TUNE, **stage}, **(seen(tmp_path) if sees else untied))
    for runs, further in (("one", []), ("two", [SHARDED])):
        done = real_children.trivium("run", recipe, "--runs", tmp_path / runs, *further)
        assert done.code == 0, done.text
    one, two = tmp_path / "one/tiny", tmp_path / "two/tiny"
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    if "precision" not in stage:  # Adam makes whole steps of gradients that are nothing but rounding
        near(weights(one / "tune/checkpoint"), weights(two / "tune/checkpoint"))
    files = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (one, two)]
    assert files[0] == files[1]
    again = real_children.trivium("run", recipe, "--runs", tmp_path / "two")
    assert "tune: up to date" in again.text, "how a model is shared out is no reason to train again"


@pytest.mark.parametrize(("lora", "ranks"), [(None, 0), ({"r": 2}, 2)])
@pytest.mark.parametrize("launch", [SHARDED, pytest.param(ZERO, marks=with_deepspeed)], ids=["fsdp", "zero"])
def test_a_killed_training_goes_on_shared_out_or_whole(
    launch: str, lora: dict[str, int] | None, ranks: int, real_children: Any, tmp_path: Path
) -> None:
    """In processes that the run starts, and in those of a launcher that is there already."""
    recipe = write(tmp_path, TUNE | {"lora": lora})
    assert real_children.trivium("run", recipe, "--runs", tmp_path / "whole").code == 0
    expected = tmp_path / "whole/tiny"

    struck = real_children.trivium(
        "run", recipe, "--runs", tmp_path / "a", launch, fault="kill rank 1", at=1, ranks=ranks
    )
    assert struck.code == 2 and "on from step 2" in struck.text and "Traceback" not in struck.text, struck.text
    if launch == SHARDED:
        _check_halves(tmp_path / "a/tiny/tune/trainer")
    assert real_children.trivium("run", recipe, "--runs", tmp_path / "a").code == 0

    struck = real_children.trivium("run", recipe, "--runs", tmp_path / "b", fault="kill after save", at=1)
    assert struck.code == -signal.SIGKILL, struck.text
    resumed = real_children.trivium("run", recipe, "--runs", tmp_path / "b", launch, ranks=ranks)
    assert resumed.code == 0, resumed.text
    for name in ("a", "b"):
        assert losses(tmp_path / name / "tiny") == pytest.approx(losses(expected), rel=1e-4)
        near(weights(tmp_path / name / "tiny/tune/checkpoint"), weights(expected / "tune/checkpoint"))


def _check_halves(folder: Path) -> None:
    """That either process held about half of the weights."""
    log = "".join(path.read_text() for path in folder.glob("launch*.log"))
    held = re.findall(r"process (\d) of 2 holds (\d+) of (\d+) bytes", log)
    assert sorted(rank for rank, *_ in held) == ["0", "1"], log
    assert all(0.45 < int(here) / int(whole) < 0.55 for _, here, whole in held), log


def test_what_cannot_be_shared_out_is_one_line_of_the_plan(real_children: Any, tmp_path: Path) -> None:
    reinforced = {"kind": "reinforce", "steps": 2, "prompts": 2, "group": 2, "max_new_tokens": 6}
    recipe = write(tmp_path, TUNE, reinforced)
    refused = planned(real_children, recipe, SHARDED)
    assert refused.code == 2 and "Traceback" not in refused.text
    assert "stages.reinforce: reinforce is trained with the whole model in each process" in refused.text, refused.text
    assert planned(real_children, recipe, SHARDED, "stages.reinforce.launch={processes: 2}").code == 0
    assert planned(real_children, recipe, "launch={processes: 1, strategy: fsdp}").code == 0


@pytest.mark.parametrize(
    ("content", "launch", "said"),
    [
        ({"distributed_type": "FSDP", "fsdp_config": {}}, {}, "asks for the old FSDP; give fsdp_config.fsdp_version"),
        (
            {"distributed_type": "MULTI_GPU"},
            {"strategy": "fsdp"},
            "launch.strategy: fsdp, and {file} asks for ddp; leave out one of them",
        ),
        ({"zero_optimization": {"stage": 2}}, {}, "is a file of DeepSpeed's; give launch.strategy: deepspeed"),
        ({"zero_optimization": {"stage": 3}}, {"strategy": "deepspeed"}, "zero_optimization.stage: 3; give 1 or 2"),
        (
            {"zero_optimization": {"stage": 2}, "bf16": {"enabled": "auto"}, "gradient_clipping": 0.5},
            {"strategy": "deepspeed"},
            "gradient_clipping is said by the stage's trl.max_grad_norm; leave it out",
        ),
        (
            {"distributed_type": "MULTI_GPU", "mixed_precision": "fp16"},
            {},
            "mixed_precision is said by the stage's precision; leave it out, or give `no`",
        ),
        ({"distributed_type": "MULTI_GPU", "mixed_precision": "no", "num_machines": 2}, {}, "ask for several machines"),
        ({"distributed_type": "MULTI_GPU", "machine_rank": 1}, {}, "num_machines and machine_rank ask for"),
        ({"distributed_type": "DEEPSPEED"}, {}, "DeepSpeed through accelerate's file is not done here"),
        ({"compute": "much"}, {}, "neither a file of `accelerate config`"),
        ("{", {}, "neither YAML nor JSON"),
    ],
)
def test_a_config_file_is_known_by_what_is_in_it(
    content: Any, launch: dict[str, Any], said: str, real_children: Any, tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    block = yaml.safe_dump({"processes": 2, "config": str(file), **launch}, default_flow_style=True, width=1000).strip()
    refused = planned(real_children, write(tmp_path, TUNE), f"launch={block}")
    assert refused.code == 2 and said.format(file=file) in refused.text and "Traceback" not in refused.text, (
        refused.text
    )
