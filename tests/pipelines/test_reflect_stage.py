"""The `reflect` stage in a recipe: goes on from what was trained before, survives a kill, is evaluated, is checked."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.checkpoints import depth_of
from pipelines.sections import ModelSettings


def write(directory: Path) -> Path:
    lines = (json.dumps({"question": f"what follows {i}?", "answer": str(i + 1)}) for i in range(12))
    (directory / "data.jsonl").write_text("".join(f"{line}\n" for line in lines))
    table = {"task": "table", "source": str(directory / "data.jsonl")}
    build = {"architecture": "llama", "hidden_size": 32, "layers": 3, "heads": 2, "kv_heads": 1, "vocab_size": 300}
    looped = {"kind": "reflect", "steps": 6, "batch_size": 4, "save_every": 1, "learning_rate": 0.01, "lora": {"r": 2}}
    recipe = {
        "name": "tiny",
        "model": {"build": build},
        "engine": {"kind": "transformers"},
        "data": {"labelled": table | {"take": 8}, "test": table | {"skip": 8}},
        "stages": [
            {"kind": "tune", "steps": 2, "batch_size": 4, "lora": {"r": 2}, "learning_rate": 0.01},
            looped,
            {"kind": "evaluate", "decoding": {"max_new_tokens": 4}},
            {"kind": "report"},
        ],
    }
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_the_loop_is_trained_on_what_was_tuned_and_evaluated(real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path)
    run = tmp_path / "tiny"
    tuned = real_children.trivium("run", recipe, "--runs", tmp_path, "--until", "tune")
    assert tuned.code == 0, tuned.text
    struck = real_children.trivium("run", recipe, "--runs", tmp_path, fault="kill after save", at=2)
    assert struck.code == -signal.SIGKILL, struck.text
    assert list((run / "reflect/trainer").glob("checkpoint-*")) and not (run / "reflect/checkpoint").exists()
    done = real_children.trivium("run", recipe, "--runs", tmp_path)
    assert done.code == 0, done.text

    adapter = json.loads((run / "reflect/checkpoint/adapter_config.json").read_text())
    assert adapter["peft_type"] == "LATENT_LOOP"
    assert adapter["base_model_name_or_path"] == str((run / "tune/checkpoint").resolve())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = {row["step"]: row for row in rows if row["stage"] == "reflect"}
    assert list(steps) == [1, 2, 3, 4, 5, 6]
    assert "loss_2" not in steps[3] and {"loss_1", "loss_2", "growth_2", "gate_mix"} <= steps[6].keys()

    result = json.loads((run / "evaluate/eval.json").read_text())
    assert [each["label"] for each in result["checkpoints"]] == ["tune", "reflect"]
    assert {(each["a"], each["b"]) for each in result["comparisons"]} == {("reflect", "tune")}
    start = f"model={{path: {run}/tune/initial, adapter: {run}/reflect/checkpoint}}"
    only = ["stages=[{kind: evaluate}]", "engine.kind=vllm"]
    planned = real_children.trivium("run", recipe, "--runs", tmp_path, "name=other", start, *only, "--plan")
    assert "model.adapter: " in planned.text and "vllm cannot run a looped checkpoint" in planned.text, planned.text
    looped = [str(run / "reflect/checkpoint"), "--suite", "sudoku-4-easy", "engine.kind=vllm", "--plan"]
    planned = real_children.trivium("eval", *looped, "--runs", tmp_path)
    assert planned.code == 2 and "vllm cannot run a looped checkpoint (2 iterations)" in planned.text, planned.text
    more = real_children.trivium("run", recipe, "--runs", tmp_path, "engine.iterations=3")
    assert more.code == 0, more.text
    again = json.loads((run / "evaluate/eval.json").read_text())
    assert again["suite"]["engine"]["iterations"] == 3 and again["suite"]["digest"] != result["suite"]["digest"]
    assert again["provenance"]["quote"].endswith(" · 3 iterations of reflect")
    assert [each["provenance"]["iterations"] for each in (result, again)] == [{"reflect": 2}, {"reflect": 3}]
    base, looped = run / "tune/checkpoint", run / "reflect/checkpoint"
    for checkpoints, code in (({"base": base}, 2), ({"base": base, "looped": looped}, 0)):
        asked = ", ".join(f"{label}: {place}" for label, place in checkpoints.items())
        only = [f"stages=[{{kind: evaluate, checkpoints: {{{asked}}}}}]", "engine.iterations=0", "name=other", "--plan"]
        planned = real_children.trivium("run", recipe, "--runs", tmp_path, *only)
        said = "engine.iterations: no checkpoint that evaluate asks has a loop"
        assert planned.code == code and (said in " ".join(planned.text.split())) == (code == 2), planned.text
    against_a_run_with_other_iterations(real_children.trivium, recipe, tmp_path)


def against_a_run_with_other_iterations(trivium: Any, recipe: Path, runs: Path) -> None:
    """The refusals of `evaluate` and `runs diff` name the ways out; the report tells how many each side made."""
    looped = f"checkpoints: {{looped: {runs}/tiny/reflect/checkpoint}}, decoding: {{max_new_tokens: 4}}"
    common = ("run", recipe, "--runs", runs, "name=other", "engine.iterations=1")

    def stages(allow: str) -> str:
        return f"stages=[{{kind: evaluate, {looped}, against: {runs}/tiny, allow: [{allow}]}}, {{kind: report}}]"

    refused = trivium(*common, stages(""))
    said = "differently: engine.iterations differ; allow=[engine] compares them all the same"
    assert refused.code == 2 and said in " ".join(refused.text.split()), refused.text
    done = trivium(*common, stages("engine"))
    assert done.code == 0, done.text
    (pair,) = json.loads((runs / "other/evaluate/eval.json").read_text())["comparisons"]
    assert pair["iterations"] == {"looped": 1, "tiny/reflect": 3}
    page = (runs / "other/report.html").read_text()
    assert "may differ in engine (iterations: looped 1, tiny/reflect 3)" in page
    differ = trivium("runs", "diff", "tiny", "other", "--runs", runs)
    assert "differ; --allow engine compares them" in " ".join(differ.text.split()), differ.text
    compared = trivium("runs", "diff", "tiny", "other", "--allow", "engine", "--runs", runs)
    assert "looped − reflect" in compared.text and "not compared" not in compared.text, compared.text


def test_mistakes_are_lines_of_the_plan(real_children: Any, tmp_path: Path) -> None:
    recipe = write(tmp_path)
    for override, said in (
        ("engine.kind=vllm", "engine.kind: vllm cannot run what `reflect` trains; give transformers"),
        ("stages.reflect.loop={iterations: 0}", "without an iteration there is nothing to train"),
        (
            "stages.reflect.loop={iterations: 2, input_iterations: 3}",
            "loop.input_iterations 3 is more than loop.iterations 2; give 2 or less",
        ),
        (
            "stages.reflect.loop={iterations: 2, align_every: 3}",
            "loop.align_every 3 is more than loop.iterations 2; give 2 or less",
        ),
        (
            "stages.reflect.loop={iterations: 7}",
            "stages.reflect: steps 6: a curriculum of 7 iterations takes a step for each at least; raise steps, or",
        ),
        (
            "stages.reflect.loop={iteration: 2}",
            "stages.reflect.loop.iteration: unknown key; did you mean `iterations`?",
        ),
        (
            "stages=[{kind: reflect, loop: {lora_sets: per_iteration}}]",
            "loop.lora_sets per_iteration: there are no LoRA weights; give lora, or leave it out",
        ),
        ("stages.reflect.loop={gate_init: .inf}", "stages.reflect.loop.gate_init: input should be a finite number"),
        ("stages.reflect.freeze_vision=false", "stages.reflect.freeze_vision"),
        ("stages.reflect.trl={loss_type: dft}", "stages.reflect.trl.loss_type: is set by the stage itself"),
        ("engine.iterations=-1", "engine.iterations: "),
        (
            "stages.reflect.loop={layers: [1, 9]}",
            "reflect.loop.layers: [1, 9] ends behind the model's last layer; it has 3, counted from 0",
        ),
    ):
        planned = real_children.trivium("run", recipe, "--runs", tmp_path, override, "--plan")
        assert planned.code == 2 and said in " ".join(planned.text.split()), planned.text
        assert "Traceback" not in planned.text
    sets = ("stages.reflect.loop={iterations: 3, lora_sets: per_iteration}", "engine.iterations=4", "--plan")
    planned = real_children.trivium("run", recipe, "--runs", tmp_path, *sets)
    said = "engine.iterations: 4 are asked for, each has LoRA weights of its own, and `reflect` trains 3; give no more"
    assert planned.code == 2 and said in " ".join(planned.text.split()), planned.text


@pytest.mark.parametrize(
    ("config", "depth"),
    [
        ({"num_hidden_layers": 5}, 5),
        # Of a vision-language model, the text tower's; where that leaves it to its class, it is not known.
        ({"num_hidden_layers": 2, "text_config": {"num_hidden_layers": 7}}, 7),
        ({"num_hidden_layers": 2, "text_config": {}}, None),
        ({}, None),
    ],
)
def test_depth_is_read_from_a_local_config(config: dict[str, Any], depth: int | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert depth_of(ModelSettings(path=str(tmp_path))) == depth
    (tmp_path / "looped").mkdir()
    adapter = {"base_model_name_or_path": str(tmp_path)}
    (tmp_path / "looped/adapter_config.json").write_text(json.dumps(adapter))
    assert depth_of(ModelSettings(path=str(tmp_path), adapter=str(tmp_path / "looped"))) == depth
    assert depth_of(ModelSettings(path="org/model")) is None
