"""Every recipe plans, and those for real models run whole on small stand-ins of the same classes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

RECIPES = Path(__file__).parents[2] / "recipes"
COLOURS = ("red", "green", "blue", "yellow")


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_recipe_plans(children: Any, recipe: Path, tmp_path: Path) -> None:
    """`children` hold no torch; that a plan imports none is tested beside the command."""
    # One goes on from another's checkpoint, which is not there yet.
    other = ["model.path=some/model"] if "path: runs/" in recipe.read_text() else []
    planned = children.trivium("run", recipe, *other, "--plan", "--runs", tmp_path)
    assert planned.code == 0, planned.text
    assert "not run yet" in planned.text
    if "source:" in recipe.read_text():
        lines = [line for line in recipe.read_text().splitlines() if not line.startswith("#")]
        on_the_hub = sum("source: " in line and "source: recipes/" not in line for line in lines)
        assert planned.text.count("on the hub: its columns are looked at when it is loaded") == on_the_hub


@pytest.mark.parametrize(
    ("recipe", "architecture"), [("llava-1.5-7b.yaml", "llava"), ("qwen2.5-vl-3b.yaml", "qwen2_5_vl")]
)
def test_recipe_runs_on_a_stand_in(real_children: Any, recipe: str, architecture: str, tmp_path: Path) -> None:
    """A model of the same class, that has learnt the seed's form beforehand as its large relative has, in float32."""
    seed = conversations(tmp_path, "seed", 6)
    fresh = conversations(tmp_path, "fresh", 12)
    parent = pretrained(real_children, architecture, seed, tmp_path)
    table = "{{task: table, source: {}, images: {}}}"
    few = [
        f"stages.{stage}.{key}" for stage in ("tune", "update") for key in ("steps=2", "batch_size=4", "accumulate=2")
    ]
    done = real_children.trivium(
        *("run", RECIPES / recipe, "--runs", tmp_path, f"model.path={parent}", "model.dtype=float32"),
        f"data.labelled={table.format(seed, tmp_path)}",
        f"data.unlabelled={{task: images, folder: {tmp_path / 'fresh'}}}",
        f"data.test={table.format(fresh, tmp_path)}",
        *("engine.kind=transformers", "engine.dtype=float32", *few, "stages.filter.select.fraction=0.5"),
        *("stages.filter.similarity=lexical", "stages.filter.select.gates={}", "stages.filter.select.quota=null"),
        *("stages.generate.decoding.max_new_tokens=48", "stages.filter.max_new_tokens=32", "stages.evaluate.limit=6"),
        *(f"stages.tune.prompts={PROMPTS}",),
    )
    assert done.code == 0, done.text
    root = next(path.parent for path in tmp_path.glob("*/report.html"))
    for stage in ("tune", "update"):
        adapter = json.loads((root / stage / "checkpoint/adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == str(parent)
        assert (root / stage / "checkpoint/adapter_model.safetensors").stat().st_size > 1000
    report = json.loads((root / "evaluate/eval.json").read_text())
    assert [each["label"] for each in report["checkpoints"]] == ["pretrained", "tune", "update"]
    assert json.loads((root / "filter/manifest.json").read_text())["rows_out"] > 0


@pytest.mark.parametrize(("recipe", "task"), [("sr2-sudoku-extreme", "sudoku"), ("sr2-maze-hard", "maze")])
def test_reasoner_recipes_run_on_a_few_small_puzzles(
    real_children: Any, recipe: str, task: str, tmp_path: Path
) -> None:
    """The model of published size, two of its segments, files in the published form."""
    from tasks.registry import load

    side = {"sudoku": {}, "maze": {"side": 6}}[task]
    for split in ("train", "test"):
        rows = ["source,question,answer,rating"]
        for problem in load(task, split, size=12, **side).problems:
            texts = ("".join(text.split()) for text in (problem.question, problem.answer))
            signs = {"sudoku": ("_", "."), "maze": (".", " ")}[task]
            rows.append(f"here,{','.join(text.replace(*signs) for text in texts)},0")
        (tmp_path / f"{split}.csv").write_text("\n".join(rows) + "\n")
    slices = {"sudoku": (",size:8", ",size:4,seed:1", ",size:4"), "maze": (",take:8", ",skip:8", ",size:4")}[task]
    data = [
        f"data.{name}={{task:{task}-file,source:{tmp_path},split:{split}{cut}}}".replace(":", ": ").replace(",", ", ")
        for name, split, cut in zip(("labelled", "validation", "test"), ("train", "train", "test"), slices, strict=True)
    ]
    few = ["steps=2", "batch_size=4", "reasoner.segments=2", "reasoner.updates=2", "judge_every=1"]
    if task == "sudoku":
        few.append("alphabet=_1234")
    done = real_children.trivium(
        *("run", RECIPES / f"{recipe}.yaml", "--runs", tmp_path, "seeds=[0]", *data),
        *(f"stages.recur.{each}" for each in few),
    )
    assert done.code == 0, done.text
    numbers = json.loads((tmp_path / recipe / "seed-0/recur/manifest.json").read_text())["numbers"]
    letters = {"sudoku": 6, "maze": 6}[task]
    assert numbers["parameters"] == 3_407_872 + 2 * letters * 512 + 512
    assert {path.name for path in (tmp_path / recipe / "seed-0/evaluate").glob("recur*")} == {"recur"}


def test_first_reasoner_runs_on_a_few_puzzles(real_children: Any, tmp_path: Path) -> None:
    few = ["steps=8", "judge_every=1", "batch_size=4", "warmup_steps=0", "reasoner.hidden_size=32", "reasoner.heads=2"]
    done = real_children.trivium(
        *("run", RECIPES / "reasoner-6x6.yaml", "--runs", tmp_path, "data.labelled.size=8", "data.validation.size=4"),
        *("data.test.size=4", *(f"stages.recur.{each}" for each in few)),
    )
    assert done.code == 0, done.text
    root = tmp_path / "reasoner-6x6"
    numbers = json.loads((root / "recur/manifest.json").read_text())["numbers"]
    assert numbers["rollouts"] == 2 and "accuracy averaged 4" in numbers
    result = json.loads((root / "evaluate/eval.json").read_text())
    assert [each["label"] for each in result["checkpoints"]] == ["recur"] and result["problems"]["used"] == 4


def test_countdown_recipe_runs_on_a_masked_stand_in(real_children: Any, tmp_path: Path) -> None:
    parent = tmp_path / "parent.yaml"
    build = "{architecture: masked_llama, hidden_size: 32, layers: 1, heads: 2, kv_heads: 1, vocab_size: 300}"
    parent.write_text(
        f"name: parent\nmodel: {{build: {build}}}\ndata: {{labelled: {{task: sudoku, size: 8}}}}\n"
        "stages:\n- {kind: tune, steps: 1, batch_size: 4, canvas: 32}\n"
    )
    done = real_children.trivium("run", parent, "--runs", tmp_path)
    assert done.code == 0, done.text
    blocks = [f"{place}.{key}" for place in ("engine", "stages.reinforce.diffusion") for key in BLOCKS]
    done = real_children.trivium(
        *("run", RECIPES / "llada-8b-countdown.yaml", "--runs", tmp_path, *blocks, "engine.dtype=float32"),
        *(f"model.path={tmp_path / 'parent/tune/checkpoint'}", "model.dtype=float32", "data.labelled.size=6"),
        *("data.test.size=4", "stages.reinforce.steps=3", "stages.reinforce.prompts=2", "stages.reinforce.group=2"),
        *("stages.reinforce.trl.num_iterations=2", "stages.reinforce.max_new_tokens=16"),
        *("stages.evaluate.decoding.max_new_tokens=16", "stages.reinforce.step_credit.credit=segments"),
    )
    assert done.code == 0, done.text
    root = tmp_path / "llada-8b-countdown"
    assert (root / "reinforce/checkpoint/adapter_model.safetensors").stat().st_size > 1000
    numbers = json.loads((root / "reinforce/manifest.json").read_text())["numbers"]
    assert numbers["steps"] == 3 and numbers["generated tokens"] >= 2 * 4 * 8
    report = json.loads((root / "evaluate/eval.json").read_text())
    assert [each["label"] for each in report["checkpoints"]] == ["pretrained", "reinforce"]


BLOCKS = ("block_length=8", "steps_per_block=2")
PROMPTS = "{system: null, propose: [ask], invert: [invert]}"


def conversations(directory: Path, name: str, count: int) -> Path:
    """Images of one colour each, and a table in the layout of llava_v1_5_mix665k.json, two rows an image."""
    (directory / name).mkdir()
    rows: list[dict[str, Any]] = []
    for number in range(count):
        colour = COLOURS[number % len(COLOURS)]
        picture = Image.new("RGB", (32, 32), "white")
        ImageDraw.Draw(picture).rectangle((4, 4, 27, 27), fill=colour)
        image = f"{name}/{number:012d}.png"
        picture.save(directory / image)
        for question, answer in (("What colour is it?", colour), ("Is it red?", "yes" if colour == "red" else "no")):
            turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
            rows.append({"id": f"{name}-{len(rows)}", "image": image, "conversations": turns})
    random.Random(0).shuffle(rows)
    table = directory / f"{name}.json"
    table.write_text(json.dumps(rows))
    return table


def pretrained(children: Any, architecture: str, table: Path, directory: Path) -> Path:
    build = (
        f"{{architecture: {architecture}, hidden_size: 64, layers: 1, heads: 2, kv_heads: 1, vision_hidden_size: 32, "
    )
    build += "vision_layers: 1, vision_heads: 1, image_size: 32, patch_size: 8, vocab_size: 320}"
    recipe = directory / "parent.yaml"
    recipe.write_text(
        f"name: parent\nmodel: {{build: {build}}}\n"
        f"data: {{labelled: {{task: table, source: {table}, images: {directory}}}}}\n"
        "stages:\n- kind: tune\n  steps: 80\n  batch_size: 12\n  learning_rate: 3.0e-3\n"
        f"  split: {{pair: 0.8, question: 0.1, answer: 0.1}}\n  prompts: {PROMPTS}\n"
    )
    done = children.trivium("run", recipe, "--runs", directory)
    assert done.code == 0, done.text
    return directory / "parent/tune/checkpoint"
