"""The `reinforce` stage in a recipe: goes on from what was trained before, is compared with it, checked by the plan."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipelines.checkpoints import model_kind
from pipelines.errors import RecipeError
from pipelines.plan import legs
from pipelines.recipe import load_recipe
from pipelines.sections import ModelSettings
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
        recipe: Any = SimpleNamespace(data={}, model=ModelSettings())
        return list(ReinforceStage.model_validate({"name": "second", "sampler": sampler}).check(recipe))

    assert lines("vllm") == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (line,) = lines("vllm")
    assert line.startswith("stages.second.sampler: vllm is not installed; pip install 'trivium-reasoning[vllm]'")
    assert lines("transformers") == []


REWARDS = """
import time

def steps(prompts, completions, steps, **columns):
    return [[1.0] * len(parts) for parts in steps]

def coloured(prompts, completions, steps, *, colour, **columns):
    return [[1.0] * len(parts) for parts in steps]

def raises(prompts, completions, **columns):
    raise KeyError("gold")

def short(prompts, completions, **columns):
    return [1.0]

def nan(prompts, completions, **columns):
    return [float("nan")] * len(completions)

def strings(prompts, completions, **columns):
    return ["1.0"] * len(completions)

def never(prompts, completions, **columns):
    time.sleep(3600)
"""


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("rewards=[{{reward: '{file}:raises'}}]", "reward `raises` raised KeyError in bad.py, line "),
        ("rewards=[{{reward: '{file}:short'}}]", "reward `short` returned 1 scores for 4 completions"),
        (
            "rewards=[{{reward: '{file}:nan'}}]",
            "reward `nan` returned nan for completion 0; a score is a",
        ),
        (
            "rewards=[{{reward: '{file}:strings'}}]",
            "reward `strings` returned '1.0' for completion 0; a score",
        ),
        ("max_new_tokens=1000", "which with max_new_tokens 1000 is more than the model's context of "),
    ],
)
def test_what_a_training_cannot_go_on_with_is_one_line(
    real_children: Any, tmp_path: Path, override: str, complaint: str
) -> None:
    asked = real_children.trivium(
        "run", recipe(tmp_path), "--runs", tmp_path, "stages.reinforce." + override.format(file=tmp_path / "bad.py")
    )
    assert_one_line(asked, complaint)


def test_a_reward_that_never_returns_is_one_line(real_children: Any, tmp_path: Path) -> None:
    never = f"stages.reinforce.rewards=[{{reward: '{tmp_path / 'bad.py'}:never'}}]"
    timeout = "stages.reinforce.reward_timeout=0.5"
    asked = real_children.trivium("run", recipe(tmp_path), "--runs", tmp_path, never, timeout)
    assert_one_line(
        asked, "reward `never` did not return within 0.5 seconds for 4 completions; make it faster, or raise"
    )


def test_a_group_that_cannot_be_split_is_a_line_of_the_plan(real_children: Any, tmp_path: Path) -> None:
    overrides = ["stages.reinforce.group=3", "stages.reinforce.accumulate=4", "--plan"]
    asked = real_children.trivium("run", recipe(tmp_path), "--runs", tmp_path, *overrides)
    assert_one_line(asked, "prompts 2 × group 3 cannot be split into 4 equal passes")


def stepped(reference: str) -> list[str]:
    return [f"stages.reinforce.step_credit={{credit: step_reward, reward: '{reference}'}}"]


ONE_STEP = "stages.reinforce.step_credit.credit=one_step"
MASKED = "model.build.architecture=masked_llama"
NO_TENSORS = (2).to_bytes(8, "little") + b"{}"
EVALUATED = "stages=[{kind: reinforce}, {kind: evaluate, data: labelled}]"


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (
            ["stages.reinforce.rewards=[{reward: '{folder}/bad.py:steps'}]"],
            "reinforce.rewards: reward `{folder}/bad.py:steps` takes `steps`: it is a step reward, which belongs in",
        ),
        (
            stepped("exact_match"),
            "reinforce.step_credit.reward: `exact_match` takes no `steps`: it grades whole completions, and belongs in",
        ),
        (stepped("{folder}/bad.py:short"), "reinforce.step_credit.reward: `{folder}/bad.py:short` takes no `steps`"),
        (stepped("{folder}/bad.py:step"), "defines no `step`; did you mean `steps`?"),
        (stepped("{folder}/bad.py:coloured"), "wants the column 'colour'; there are: answer, image, kind, question"),
        (
            [MASKED, *stepped("{folder}/bad.py:steps"), "stages.reinforce.step_credit.cut=uniform"],
            "stages.reinforce.step_credit.cut: step_reward wants the parts of a text, and between any two steps of a",
        ),
        (["stages.reinforce.step_credit={credit: segmnts}"], "no credit is called `segmnts`; did you mean `segments`?"),
        (
            ["stages.reinforce.step_credit={credit: '{folder}/bad.py:step'}"],
            "reinforce.step_credit.credit: credit {folder}/bad.py:step: {folder}/bad.py defines no `step`;",
        ),
        (
            ["stages.reinforce.step_credit={credit: '{folder}/bad.py:steps', calibrate: baselines}"],
            "calibrate: baselines makes two sets of values, and a function takes one",
        ),
        (
            [MASKED, "stages.reinforce.step_credit.cut=coin"],
            "step_credit.cut: coin is for autoregressive models, whose",
        ),
        (["stages.reinforce.step_credit={credit: step_reward}"], "give reward: path/to/file.py:function"),
        ([ONE_STEP], "stages.reinforce.step_credit.credit: one_step wants a masked-diffusion model"),
        ([MASKED, "stages.reinforce.top_p=0.9"], "stages.reinforce.top_p: the sampler of a masked-diffusion model"),
        ([MASKED, "stages.reinforce.trl.top_k=5"], "stages.reinforce.trl.top_k: the sampler"),
        ([MASKED, "stages.reinforce.sampler=vllm"], "stages.reinforce.sampler: vllm runs no masked-diffusion models"),
        (["stages.reinforce.trl.multi_objective_aggregation=normalize_then_sum"], "step credit wants sum_then"),
        (
            [MASKED, EVALUATED],
            "engine.kind: evaluate asks a masked-diffusion model, which transformers does not run; give diffusion",
        ),
        (
            [EVALUATED, "engine.kind=diffusion"],
            "engine.kind: evaluate asks an autoregressive model, which diffusion does not run; give transformers",
        ),
    ],
)
def test_what_the_kind_of_model_cannot_do_is_a_line_of_the_plan(
    tmp_path: Path, overrides: list[str], complaint: str
) -> None:
    with pytest.raises(RecipeError) as raised:
        overrides = [each.replace("{folder}", str(tmp_path)) for each in overrides]
        legs(load_recipe(recipe(tmp_path), overrides), tmp_path / "runs")
    complaint = complaint.replace("{folder}", str(tmp_path))
    assert complaint in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "overrides",
    [[], [EVALUATED], [MASKED, ONE_STEP], [MASKED, EVALUATED, ONE_STEP, "engine.kind=diffusion"],
     stepped("{folder}/bad.py:steps"), [MASKED, *stepped("{folder}/bad.py:steps")],
     [MASKED, "stages.reinforce.top_p=1"], [MASKED, EVALUATED, "engine={kind: endpoint, url: 'http://localhost'}"]],
)  # fmt: skip
def test_what_it_can_do_is_planned(tmp_path: Path, overrides: list[str]) -> None:
    overrides = [each.replace("{folder}", str(tmp_path)) for each in overrides]
    assert legs(load_recipe(recipe(tmp_path), overrides), tmp_path / "runs")


def test_a_step_reward_that_has_changed_makes_its_stage_run_again(tmp_path: Path) -> None:
    def versions(overrides: list[str]) -> Any:
        (stage,) = load_recipe(recipe(tmp_path), overrides).stages
        return stage.versions()

    overrides = stepped(f"{tmp_path}/bad.py:steps")
    before = versions(overrides)
    assert set(before) == {"reward exact_match", "step reward"}
    file = tmp_path / "bad.py"
    stage = load_recipe(recipe(tmp_path), overrides).stages[0]
    file.write_text(file.read_text() + "# changed\n")
    assert stage.versions() != before
    assert set(versions([])) == {"reward exact_match"}
    assert set(versions([f"stages.reinforce.step_credit={{credit: '{file}:steps'}}"])) == {*versions([]), "step credit"}


@pytest.mark.parametrize("adapted", [False, True])
def test_the_kind_of_a_checkpoint_is_read_off_its_config(tmp_path: Path, adapted: bool) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama", "is_causal": false}')
    (path / "model.safetensors").write_bytes(NO_TENSORS)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(path)}))
    (adapter / "adapter_model.safetensors").write_bytes(NO_TENSORS)
    model = {"path": str(path), "adapter": str(adapter) if adapted else None}
    overrides = [f"model={json.dumps(model)}", EVALUATED]
    with pytest.raises(RecipeError, match="asks a masked-diffusion model"):
        legs(load_recipe(recipe(tmp_path), overrides), tmp_path / "runs")
    for unknown in ("someone/model", str(tmp_path / "nowhere")):
        assert model_kind(ModelSettings(path=unknown)) is None


def recipe(folder: Path) -> Path:
    (folder / "bad.py").write_text(REWARDS)
    (folder / "data.jsonl").write_text("".join(f'{{"question": "what is {i}?", "answer": "a"}}\n' for i in range(4)))
    build = {"architecture": "llama", "hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 1, "vocab_size": 300,
             "max_length": 128}  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "tiny",
                "model": {"build": build},
                "data": {"labelled": {"task": "table", "source": str(folder / "data.jsonl")}},
                "stages": [{"kind": "reinforce", "steps": 1, "prompts": 2, "group": 2, "max_new_tokens": 6}],
            }
        )
    )
    return path


def assert_one_line(asked: Any, complaint: str) -> None:
    assert asked.code == 2, asked.text
    lines = [line for line in asked.text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and complaint in lines[0] and "Traceback" not in asked.text, asked.text
