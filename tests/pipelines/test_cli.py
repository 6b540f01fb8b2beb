"""The command as people meet it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.trl_options import check_trl, choices, config_fields

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "numba", "pandas")
CHILD = Path(__file__).with_name("child.py")


def write_recipe(directory: Path, **changes: Any) -> Path:
    recipe: dict[str, Any] = {
        "name": "toy",
        "model": {"build": {}},
        "data": {"field": {"task": "easy-vqa"}, "spare": {"task": "easy-vqa"}},
        "stages": [{"kind": "sow"}, {"kind": "grow"}, {"kind": "tally"}],
        "arms": {"sparse": {"grow.select.every": 5}},
    }
    path = directory / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | changes))
    return path


@pytest.fixture
def trivium(children: Any, tmp_path: Path) -> Callable[..., Any]:
    def command(*arguments: object) -> Any:
        return children.trivium(*arguments, "--runs", tmp_path / "runs")

    return command


def test_options_are_frozen() -> None:
    """A new option is a decision: change this list on purpose, with the docs."""
    found = {}

    def walk(command: Any, name: str) -> None:
        for each in getattr(command, "commands", {}).values():
            walk(each, f"{name} {each.name}")
        if not hasattr(command, "commands"):
            found[name.strip()] = [p.opts[0] if p.opts[0].startswith("-") else p.name.upper() for p in command.params]

    walk(typer.main.get_command(app), "")
    assert found == {
        "run": ["RECIPE", "OVERRIDES", "--only", "--from", "--until", "--plan", "--on", "--runs"],
        "launch slurm": ["RECIPE", "OVERRIDES", "--runs"],
        "report": ["RUN", "--runs"],
        "serve": ["RUN", "--port", "--host", "--expose", "--runs"],
        "convert": ["SOURCE", "TARGET", "--sha256"],
        "doctor": ["--repair"],
        "eval ask": [
            "CHECKPOINT",
            "OVERRIDES",
            "--suite",
            "--k",
            "--n",
            "--limit",
            "--against",
            "--require",
            "--name",
            "--plan",
            "--runs",
        ],
        "eval composed": ["RUN", "SPLIT", "--suite", "--runs"],
        "eval import": ["PLACE", "--name", "--label", "--runs"],
        "eval split": ["GRAPH", "TABLE", "TARGET", "--train", "--seed"],
        "eval rescore": ["RUN", "--reward", "--strict", "--flexible", "--suite", "--runs"],
        "eval show": ["SUITE", "OVERRIDES", "-n", "--checkpoint"],
        "eval suites": [],
        "runs list": ["--runs"],
        "runs show": ["RUN", "--watch", "--runs"],
        "runs diff": ["A", "B", "--all", "--allow", "--runs"],
        "rewards check": ["REFERENCE", "OVERRIDES", "--data"],
        "rewards list": [],
        "rewards new": ["REFERENCE", "--steps"],
        "rewards show": ["NAME"],
        "tasks list": [],
        "tasks show": ["NAME", "OVERRIDES", "--split", "-n"],
    }


def test_convert_writes_a_masked_model_or_says_in_a_line_why_not(tmp_path: Path) -> None:
    from selfrefine.build import BuildSpec, build_model

    build_model(
        BuildSpec(architecture="llama", hidden_size=32, layers=1, heads=2), ["abc"], tmp_path / "causal", seed=0
    )
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "causal"), str(tmp_path / "masked")])
    assert done.exit_code == 0 and "tune it before use" in done.output
    config = json.loads((tmp_path / "masked/config.json").read_text())
    assert config["is_causal"] is False and isinstance(config["mask_token_id"], int)
    again = CliRunner().invoke(app, ["convert", str(tmp_path / "causal"), str(tmp_path / "masked")])
    assert again.exit_code == 2 and "exists already" in again.output
    again = CliRunner().invoke(app, ["convert", str(tmp_path / "nothing"), str(tmp_path / "new")])
    assert again.exit_code == 2 and "no config.json" in again.output
    for arguments, line in (
        (["nothing.gguf", "new"], "nothing.gguf: no such file"),
        (["causal", "new", "--sha256", "00"], "is of a .gguf file"),
    ):
        again = CliRunner().invoke(app, ["convert", *(str(tmp_path / name) for name in arguments[:2]), *arguments[2:]])
        assert again.exit_code == 2 and line in again.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["causal", "masked"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["rewards", "list"],
        ["tasks", "list"],
        ["runs", "list"],
        ["run", "RECIPE", "--plan"],
    ],
    ids=" ".join,
)
def test_quick_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    given = [str(write_recipe(tmp_path)) if word == "RECIPE" else word for word in arguments]
    assert lines_and_heavy_imports(given, tmp_path)[-1] == "HEAVY []"


def lines_and_heavy_imports(arguments: list[str], directory: Path) -> list[str]:
    """What the command prints in a process of its own, then a line with what it imported of `HEAVY`."""
    script = (
        f"import sys, runpy; sys.argv = ['child.py', 'trivium', *{arguments!r}]\n"
        f"try: runpy.run_path({str(CHILD)!r}, run_name='__main__')\n"
        "except SystemExit as leaving: assert not leaving.code, leaving.code\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=directory, check=True)
    return done.stdout.splitlines()


def test_finished_recipe_runs_again_at_once_and_without_torch(trivium: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    assert trivium("run", recipe).code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.name != "lock"}
    again = trivium("run", recipe)
    assert again.code == 0 and again.writes == 0
    *lines, heavy = lines_and_heavy_imports(["run", str(recipe), "--runs", str(tmp_path / "runs")], tmp_path)
    assert sum(": up to date" in line for line in lines) == again.text.count(": up to date") == 4
    assert heavy == "HEAVY []"
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_plan_and_run_name_the_changed_key(trivium: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    fresh = trivium("run", recipe, "--plan")
    assert fresh.code == 0 and fresh.text.count("not run yet") == 4
    assert not (tmp_path / "runs").exists(), "a plan writes nothing"
    trivium("run", recipe)
    planned = trivium("run", recipe, "stages.grow.factor=4", "--plan").text
    assert "factor 3.0 -> 4.0" in planned
    ran = trivium("run", recipe, "stages.grow.factor=4").text
    assert "sow: up to date" in ran
    assert "grow: factor 3.0 -> 4.0" in ran
    assert "grow@sparse: factor 3.0 -> 4.0" in ran
    assert "tally: follows grow" in ran
    assert "tally: follows sow" in trivium("run", recipe, "data.field.take=9", "--until", "tally").text
    assert trivium("run", recipe, "data.field.take=9", "data.spare.take=5").text.count(": up to date") == 4


def test_settings_that_keep_the_shards_key_do_no_work_again(trivium: Any, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    recipe = write_recipe(tmp_path, stages=[{"kind": "sow"}, {"kind": "grow", "diary": str(diary)}], arms={})
    trivium("run", recipe)
    assert len(diary.read_text().splitlines()) == 3
    changed = trivium("run", recipe, "stages.grow.select.every=5")
    assert "grow: select.every 2 -> 5" in changed.text
    assert len(diary.read_text().splitlines()) == 3, "measured rows are used again"
    kept = (tmp_path / "runs/toy/grow/kept.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in kept] == [0, 5]
    trivium("run", recipe, "stages.grow.factor=5")
    assert len(diary.read_text().splitlines()) == 6, "another key measures anew"


def test_old_outputs_do_not_mix_with_new(trivium: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    trivium("run", recipe)
    stale = tmp_path / "runs/toy/grow/deep/stale.txt"
    stale.parent.mkdir()
    stale.write_text("of an older result")
    metrics = tmp_path / "runs/toy/metrics.jsonl"
    assert len(metrics.read_text().splitlines()) == 6
    trivium("run", recipe, "stages.grow.factor=5")
    assert not stale.parent.exists()
    values = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert sorted(each["value"] for each in values if each["stage"] == "grow") == [0, 20, 40]


def test_missing_or_changed_outputs_are_made_again(trivium: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    trivium("run", recipe)
    (tmp_path / "runs/toy/sow/rows.json").unlink()
    again = trivium("run", recipe).text
    assert "sow: rows.json is missing" in again
    assert "grow: up to date" in again, "the outputs came out the same"
    (tmp_path / "runs/toy/grow/kept.jsonl").write_text("")
    assert "grow: kept.jsonl was changed" in trivium("run", recipe).text


def test_selection_refuses_what_is_not_up_to_date(trivium: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    refused = trivium("run", recipe, "--only", "grow")
    assert refused.code == 2
    assert "grow reads sow, which is not up to date (not run yet); run that first" in refused.text
    assert trivium("run", recipe, "--until", "sow").code == 0
    assert sorted(path.parent.name for path in (tmp_path / "runs/toy").glob("*/manifest.json")) == ["sow"]
    assert trivium("run", recipe, "--only", "grow").code == 0
    stale = trivium("run", recipe, "stages.sow.count=11", "--from", "grow")
    assert stale.code == 2 and "count 10 -> 11" in stale.text
    unknown = trivium("run", recipe, "--only", "gorw")
    assert unknown.code == 2 and "did you mean `grow`?" in unknown.text


def test_seeds_run_apart_and_come_together(trivium: Any, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path, seeds=[1, 2], stages=[{"kind": "sow"}, {"kind": "tally"}, {"kind": "combine"}], arms={}
    )
    ran = trivium("run", recipe)
    assert ran.code == 0, ran.text
    root = tmp_path / "runs/toy"
    names = [name for name, _ in json.loads((root / "combine/tally.json").read_text())]
    assert names == ["seed-1/sow", "seed-1/tally", "seed-2/sow", "seed-2/tally"]
    seeds = {json.loads((root / f"seed-{seed}/sow/manifest.json").read_text())["seed"] for seed in (1, 2)}
    assert len(seeds) == 2
    assert trivium("run", recipe).text.count(": up to date") == 5
    added = trivium("run", recipe, "seeds=[1, 2, 3]").text
    assert added.count(": up to date") == 4 and "combine: follows seed-3/sow" in added


def test_manifest_says_how(trivium: Any, tmp_path: Path) -> None:
    trivium("run", write_recipe(tmp_path))
    manifest = json.loads((tmp_path / "runs/toy/grow@sparse/manifest.json").read_text())
    assert manifest["rows_in"] == manifest["rows_out"] + sum(manifest["dropped"].values()) == 10
    assert manifest["dropped"] == {"not selected": 8}
    assert manifest["packages"]["python"].startswith("3.")
    assert manifest["device"] and manifest["peak_memory_mib"] > 10
    assert set(manifest["files"]) == {"kept.jsonl"}


def test_trl_options_are_checked_before_anything_runs(trivium: Any, tmp_path: Path) -> None:
    def complaint(**trl: Any) -> str:
        stages = [{"kind": "sow", "trl": trl}, {"kind": "grow"}]
        planned = trivium("run", write_recipe(tmp_path, stages=stages), "--plan")
        return "" if planned.code == 0 else planned.text

    assert complaint(learning_rate=1e-4, packing=True, max_length=64, bf16=False) == ""
    assert "stages.sow.trl.lerning_rate: no option of TRL's SFTConfig; did you mean `learning_rate`?" in complaint(
        lerning_rate=1
    )
    assert "stages.sow.trl.output_dir: is set by the stage itself" in complaint(output_dir="x")
    assert "stages.sow.trl._n_gpu: no option" in complaint(_n_gpu=1)
    assert "trl.lr_scheduler_type: 'cosin' is no SchedulerType; did you mean `cosine`?" in complaint(
        lr_scheduler_type="cosin"
    )
    assert "trl.weight_decay: takes float, not 'much'" in complaint(weight_decay="much")
    assert complaint(lr_scheduler_type="linear", warmup_steps=3, lr_scheduler_kwargs={"num_cycles": 1}) == ""


def test_trl_options_read_from_source_are_those_of_the_classes() -> None:
    from trl import SFTConfig

    fields = [field for field in dataclasses.fields(SFTConfig) if field.init]
    assert set(config_fields("SFTConfig")) == {field.name for field in fields}
    # The values that the class itself starts from are possible ones.
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    plain = {name: getattr(value, "value", value) for name, value in defaults.items()}
    assert len(plain) > 100
    assert list(check_trl(plain, "SFTConfig", (), "tune")) == []


def test_choices_read_from_source_are_those_of_the_classes() -> None:
    from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    for choice in (HubStrategy, IntervalStrategy, OptimizerNames, SaveStrategy, SchedulerType):
        assert set(choices(choice.__name__)) == {each.value for each in choice}


def test_stage_check_speaks_at_plan_time(trivium: Any, tmp_path: Path) -> None:
    planned = trivium("run", write_recipe(tmp_path), "stages.sow.count=2000", "--plan")
    assert planned.code == 2
    assert planned.text.strip() == "error: toy: stages.sow.count: the field holds 1000 seeds, not 2000"


def test_model_that_cannot_be_is_named_at_plan_time(trivium: Any, tmp_path: Path) -> None:
    empty = tmp_path / "model"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    for path, complaint in ((empty, "no weights"), (tmp_path / "absent", "no such model directory")):
        planned = trivium("run", write_recipe(tmp_path, model={"path": str(path)}), "--plan")
        assert planned.code == 2 and len(planned.text.splitlines()) == 1
        assert "model.path" in planned.text and complaint in planned.text


def test_report_is_written_from_what_is_there(trivium: Any, tmp_path: Path) -> None:
    trivium("run", write_recipe(tmp_path), "--until", "grow")
    told = trivium("report", "toy")
    assert told.code == 0, told.text
    assert Path(told.text.strip().splitlines()[-1]).read_text().lower().startswith("<!doctype html>")


def test_progress_is_a_few_plain_lines_where_nobody_watches(trivium: Any, tmp_path: Path) -> None:
    text = trivium("run", write_recipe(tmp_path), "--until", "grow").text
    assert text.count("grow: growing 10/10") == 1
    assert "\x1b" not in text and "\r" not in text


def test_places_that_cannot_hold_runs(children: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc")):
        refused = children.trivium("run", recipe, "--runs", place)
        assert refused.code == 2, refused.text
        assert len(refused.text.strip().splitlines()) == 1 and "--runs DIR" in refused.text


def test_runs_can_be_listed_shown_and_compared(trivium: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    trivium("run", recipe)
    trivium("run", recipe, "name=other", "stages.grow.factor=4")
    listed = trivium("runs", "list").text
    assert "toy" in listed and "other" in listed
    shown = trivium("runs", "show", "toy").text
    assert "tallest" in shown and "dropped: not selected" in shown
    compared = trivium("runs", "diff", "toy", "other").text
    assert "recipe.stages.grow.factor" in compared and "grow: tallest" in compared
    assert "rows in" not in compared, "what is equal is left out"
    lines = [line.split() for line in compared.splitlines() if line.strip()]
    named = [words[0] for words in lines]
    assert named.index("grow:") < named.index("recipe.stages.grow.factor"), "results before settings"
    assert "recipe.name" not in named
    # A stage that one run alone has is one line, whatever it is set to; an arm with one setting is that setting.
    fewer = write_recipe(tmp_path, name="fewer", stages=[{"kind": "sow"}], arms={})
    trivium("run", fewer)
    lines = [line.split() for line in trivium("runs", "diff", "toy", "fewer").text.splitlines()]
    (grow,) = [words for words in lines if words and words[0].startswith("recipe.stages.grow")]
    assert grow[0] == "recipe.stages.grow" and grow[2:] == ["settings"] and int(grow[1]) > 2
    assert ["recipe.arms.sparse.grow.select.every", "5"] in lines
    missing = trivium("runs", "show", "toi")
    assert missing.code == 2 and "did you mean `toy`?" in missing.text


def test_damaged_manifest_is_one_line(trivium: Any, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    trivium("run", recipe)
    (tmp_path / "runs/toy/sow/manifest.json").write_text("{}")
    refused = trivium("run", recipe)
    assert refused.code == 2 and "delete the file to run the stage again" in refused.text


def test_tasks_and_rewards(children: Any) -> None:
    assert "easy-vqa" in children.trivium("tasks", "list").text
    assert "what " in children.trivium("tasks", "show", "easy-vqa", "-n", 3).text
    mistaken = children.trivium("tasks", "show", "easy-vga")
    assert mistaken.code == 2 and "did you mean" in mistaken.text
    assert "exact_match" in children.trivium("rewards", "list").text
    assert children.trivium("rewards", "show", "exact_match").code == 0
    assert children.trivium("rewards", "show", "exact_mach").code == 2


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("split=test", "`split=test`: here the split is an option: --split test"),
        ("task=maze", "`task=maze`: the task is the first argument, without task=; leave this out"),
        ("skip=a", "skip is a whole number of 0 or more, not 'a'"),
        ("take=-2", "take is a whole number of 1 or more, not -2"),
        ("name=x", "`name` is no key of task sudoku; there are: "),
    ],
)
def test_tasks_show_says_how_a_key_of_recipes_is_given(given: str, line: str, children: Any) -> None:
    refused = children.trivium("tasks", "show", "sudoku", given)
    assert refused.code == 2 and f"error: {line}" in refused.text and "Traceback" not in refused.text


def test_tasks_show_makes_as_many_problems_as_its_slice_takes(children: Any) -> None:
    def shown(*arguments: object) -> str:
        text: str = children.trivium("tasks", "show", "sudoku", *arguments).text
        return text

    assert "7 problems" in shown("take=7")
    last = shown("skip=6", "-n", 1)
    # The problem's name and kind, its grid, and the blank line: as the end of all seven.
    assert "1 problems" in last and "10 empty" in last
    assert last.splitlines()[-6:-1] == shown("-n", 7).splitlines()[-6:-1]
