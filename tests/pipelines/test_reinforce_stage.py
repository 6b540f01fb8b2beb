"""The `reinforce` stage in a recipe: goes on from what was trained before, is compared with it, checked by the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.stages.reinforce import ReinforceStage


def test_the_stage_goes_on_from_tune_and_is_compared_with_it(real_children: Any, tmp_path: Path) -> None:
    build = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300, "image_size": 32,
             "vision_hidden_size": 32, "vision_layers": 1, "vision_heads": 2}  # fmt: skip
    reinforced = {"kind": "reinforce", "steps": 2, "prompts": 2, "group": 2, "max_new_tokens": 6}
    recipe = {
        "name": "tiny",
        "model": {"build": build},
        "data": {
            "labelled": {"task": "easy-vqa", "take": 6},
            "test": {"task": "easy-vqa", "split": "validation", "take": 2},
        },
        "stages": [{"kind": "tune", "steps": 2, "batch_size": 4}, reinforced,
                   {"kind": "evaluate", "decoding": {"max_new_tokens": 4}}, {"kind": "report"}],
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = real_children.trivium("run", path, "--runs", tmp_path)
    assert done.code == 0, done.text
    result = json.loads((tmp_path / "tiny/evaluate/eval.json").read_text())
    assert [each["label"] for each in result["checkpoints"]] == ["tune", "reinforce"]
    assert {(each["a"], each["b"]) for each in result["comparisons"]} == {("reinforce", "tune")}
    planned = real_children.trivium(
        "run", path, "--runs", tmp_path, "stages.reinforce.rewards=[{reward: exact_mach}]", "--plan"
    )
    assert planned.code == 2 and "did you mean `exact_match`" in planned.text
    planned = real_children.trivium("run", path, "--runs", tmp_path, "stages.reinforce.trl={loss_typ: dapo}", "--plan")
    assert "stages.reinforce.trl.loss_typ: no option of TRL's GRPOConfig; did you mean `loss_type`?" in planned.text


def test_a_sampler_that_is_not_installed_is_a_line_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(sampler: str) -> list[str]:
        return list(ReinforceStage.model_validate({"name": "second", "sampler": sampler}).check(None))  # type: ignore[arg-type]

    assert lines("vllm") == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (line,) = lines("vllm")
    assert line.startswith("stages.second.sampler: vllm is not installed; pip install 'trivium-reasoning[vllm]'")
    assert lines("transformers") == []
