"""The cost of whole recipes: what `--plan` prints, what follows from what, and files that a run really writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.chain import expand
from pipelines.cli import app
from pipelines.cost.devices import GPUS, device, processor
from pipelines.cost.estimate import estimates
from pipelines.cost.show import clock, size
from pipelines.cost.work import Work
from pipelines.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
QUICKSTART = RECIPES / "quickstart.yaml"


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Any]:
    def command(recipe: Path, *arguments: str) -> Any:
        return CliRunner().invoke(app, ["run", str(recipe), *arguments, "--runs", str(tmp_path)])

    return command


def works(recipe: Path, *overrides: str, on: str = "a100") -> dict[str, Work]:
    found = load_recipe(recipe, overrides)
    return dict(estimates(found, expand(found), device(on))[0])


def test_plan_prints_what_each_stage_costs(plan: Any) -> None:
    done = plan(QUICKSTART, "--plan", "--on", "2xa100")
    assert done.exit_code == 0, done.output
    rows = {cells[0]: cells for line in done.output.splitlines() if (cells := line.split())}
    assert rows["cost"][-2:] == ["memory", "disk"]
    for stage in ("base", "tune", "generate", "filter", "update", "reinforce", "reflect", "evaluate", "report", "in"):
        assert stage in rows
    assert "GPU hours" in done.output
    assert "reckoned for 2 × a100: 30% of 312 TFLOP/s" in done.output
    assert "trainings on all 2 GPUs, which takes launch.processes=2" in done.output
    assert "core hours" in plan(QUICKSTART, "--plan", "--on", "cpu").output


def test_seeds_are_one_line_and_count_in_the_sum(plan: Any) -> None:
    def hours(*arguments: str) -> dict[str, float]:
        done = plan(QUICKSTART, "--plan", "--on", "a100", "--until", "generate", *arguments)
        rows = [line.split() for line in done.output[done.output.index(" cost ") :].splitlines()]
        # GPU hours stand before the time on the clock, which is two words, memory and disk.
        return {
            " ".join(row[: -len(row) + 3]): float(row[-5]) for row in rows if len(row) > 6 and row[-1].endswith("B")
        }

    one, three = hours(), hours("seeds=[0, 1, 2]")
    names = [name for name in three if "tune" in name]
    assert names == ["3 × tune"]
    total = next(value for name, value in three.items() if name.startswith("in all"))
    assert total == pytest.approx(3 * next(v for n, v in one.items() if n.startswith("in all")), rel=0.1)


def test_only_what_is_due_and_chosen_is_reckoned(plan: Any) -> None:
    done = plan(QUICKSTART, "--plan", "--until", "tune")
    table = done.output[done.output.index("core hours") :]
    assert " tune " in table
    assert " update " not in table


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--plan", "--on", "h10"), "--on: no device is called `h10`; did you mean `h100`?"),
        (("--plan", "--on", "0xh100"), "--on: no device is called `0xh100`; did you mean `h100`?"),
        (("--plan", "--on", "abacus"), "there are: a10, a100, a100-40gb"),
        (("--on", "h100"), "--on h100: says what --plan reckons the cost for; give --plan too, or leave --on out"),
    ],
)
def test_mistake_is_one_line(plan: Any, arguments: tuple[str, ...], line: str) -> None:
    done = plan(QUICKSTART, *arguments)
    assert done.exit_code == 2
    assert line in done.output
    assert done.output.count("\n") == 1


def test_model_that_is_not_here_is_one_line(plan: Any) -> None:
    done = plan(RECIPES / "smollm2-reinforce.yaml", "model.path=someone/unheard-of", "--plan")
    assert done.exit_code == 0, done.output
    assert "the size of someone/unheard-of is not known: it is not on this machine" in done.output
    assert done.output.count("is not known: it is") == 1
    assert "hours" not in done.output


def test_plan_with_its_costs_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom pipelines.cli import app\n"
        f"done = CliRunner().invoke(app, ['run', {str(QUICKSTART)!r}, '--plan', '--runs', {str(tmp_path)!r}])\n"
        "assert 'core hours' in done.output or 'GPU hours' in done.output, done.output\n"
        "print([n for n in ('torch', 'transformers', 'datasets', 'pyarrow', 'tokenizers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_filter_keeps_its_fraction_and_update_trains_on_it() -> None:
    """By hand: 100 images with a pair each, a fifth of them kept, beside what is labelled."""
    few = ("data.unlabelled.take=100", "stages.update.steps=null", "stages.update.batch_size=1")
    found = works(QUICKSTART, *few)
    labelled = 33652 * 400 / 3491  # images have as many questions each as in the whole split
    steps = found["update"].phases[0].images
    assert steps == pytest.approx(labelled + 20, abs=1.5)
    more = works(QUICKSTART, *few, "stages.filter.select.fraction=0.5")
    assert more["update"].phases[0].images - steps == pytest.approx(30, abs=1.5)
    assert found["generate"].phases[0].images == 100
    rebuilt = [phase for phase in found["filter"].phases if phase.name == "rebuilt answers: reading"]
    assert rebuilt[0].images == 100


def test_arm_that_only_selects_otherwise_measures_nothing() -> None:
    found = works(RECIPES / "ablation-easy-vqa.yaml")
    assert found["filter"].flops > 0
    assert found["filter@random"].flops == 0
    assert found["update@random"].flops > 0


def test_rounds_share_the_images_and_collect_the_pairs() -> None:
    one, two = works(QUICKSTART), works(QUICKSTART, "rounds=2")
    assert two["generate"].phases[0].images == one["generate"].phases[0].images / 2
    assert two["generate.2"].phases[0].images == two["generate"].phases[0].images
    assert two["evaluate"].generated > one["evaluate"].generated


def test_evaluation_asks_each_checkpoint_each_problem_so_often() -> None:
    once = works(QUICKSTART)["evaluate"]
    assert sum(phase.images for phase in once.phases) == 9673 * 5
    decoding = "stages.evaluate.decoding={max_new_tokens: 8, temperature: 1.0}"
    four = works(QUICKSTART, "stages.evaluate.n=4", "stages.evaluate.limit=100", decoding)["evaluate"]
    assert four.generated == pytest.approx(once.generated * 400 / 9673)


def test_suite_brings_its_problems_and_lengths(tmp_path: Path) -> None:
    recipe = tmp_path / "suite.yaml"
    recipe.write_text(
        yaml.safe_dump(
            {
                "name": "suite",
                "model": {"path": "HuggingFaceTB/SmolLM2-135M-Instruct"},
                "stages": [{"kind": "evaluate", "suite": "gsm8k"}],
            }
        )
    )
    (work,) = works(recipe).values()
    assert work.generated == 1319 * 0.5 * 1024  # half of what the suite allows


def test_rows_beside_the_suites_file_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    row = json.dumps({"question": "Is it?", "answer": "yes"}) + "\n"
    (tmp_path / "shared/rows.jsonl").write_text(7 * row)
    suite = {"version": 1, "summary": "rows", "data": {"task": "table", "source": "rows.jsonl"}}
    (tmp_path / "shared/mine.yaml").write_text(yaml.safe_dump(suite))
    recipe = {
        "name": "suite",
        "model": {"path": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        "stages": [{"kind": "evaluate", "suite": "../shared/mine.yaml"}],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (work,) = works(tmp_path / "recipe.yaml").values()
    assert work.generated == 7 * 0.5 * 64  # half of what the suite allows


def test_processes_that_are_launched_are_those_that_train() -> None:
    two = works(QUICKSTART, "launch.processes=2", on="8xa100")["tune"]
    assert {phase.gpus for phase in two.phases} == {2}
    assert {phase.gpus for phase in works(QUICKSTART, on="8xa100")["tune"].phases} == {8}
    assert {phase.gpus for phase in works(QUICKSTART, on="8xa100")["generate"].phases} == {1}


@pytest.mark.parametrize("recipe", ["sr2-sudoku-extreme", "sr2-maze-hard"])
def test_recipes_of_published_size_fit_the_gpu_that_they_name(recipe: str) -> None:
    work = works(Path(f"recipes/{recipe}.yaml"), on="h100")["recur"]
    assert work.memory is not None and work.memory < 80e9


def test_weights_that_are_chosen_are_looked_at_and_kept_as_well() -> None:
    recipe = RECIPES / "reasoner-6x6.yaml"
    plain = works(recipe)["recur"]
    for override, weights, looks in (("ema=0.995", 3, 2 * 10), ("ema=null", 2, 10)):
        best = works(recipe, "stages.recur.keep=best", f"stages.recur.{override}")["recur"]
        # Both weights at twice the alignments, and ten looks at those of the step.
        assert best.phases[1].flops / plain.phases[1].flops == pytest.approx((2 * weights + looks) / (2 * 2 + 10))
        assert best.kept == pytest.approx(plain.kept * weights / 2)


def test_every_device_is_plausible() -> None:
    for each in GPUS.values():
        assert each.bf16 > each.fp32 > 1e12
        assert 2e11 < each.bandwidth < 1e13
        assert 1e10 < each.memory < 3e11
    assert device("16xcpu").count == 16
    here = processor()
    assert 1e9 < here.fp32 < 1e12
    assert not here.gpu


def test_words_for_numbers() -> None:
    assert [clock(seconds) for seconds in (0, 40, 89, 90, 7200, 86400 * 3)] == [
        *("", "40 s", "89 s", "1.5 min", "2.0 h", "3.0 days"),
    ]
    assert [size(number) for number in (12, 1500, 3.4e9)] == ["12 B", "1.5kB", "3.4GB"]


def test_files_of_a_run_are_as_large_as_foretold(tmp_path: Path) -> None:
    from pipelines import runner
    from pipelines.manifest import Manifest
    from pipelines.plan import Selection

    overrides = [
        *("data.labelled.take=40", "data.test.take=30", "stages.base.steps=3", "stages.tune.steps=3"),
        *("stages.tune.lora={r: 4}", "stages.update.lora={r: 4}", "stages.base.save_every=1"),
    ]
    recipe = load_recipe(QUICKSTART, overrides)
    runner.run(recipe, tmp_path / "run", Selection(until="tune"), lambda line: None)
    found, _ = estimates(recipe, expand(recipe), processor())
    for name in ("base", "tune"):
        manifest = Manifest.read(tmp_path / "run" / name)
        assert manifest is not None
        written = sum(file.size for file in manifest.files.values())
        assert found[name].kept == pytest.approx(written, rel=0.1)
        assert found[name].memory == pytest.approx(manifest.peak_memory_mib * 2**20, rel=0.35)
    config = json.loads((tmp_path / "run/base/checkpoint/config.json").read_text())
    assert config["model_type"] == "qwen2_5_vl"
    # Two saves are kept beside the third: the weights and the optimiser's two averages of each.
    weights = (tmp_path / "run/base/checkpoint/model.safetensors").stat().st_size
    assert found["base"].most - found["base"].kept == pytest.approx(2 * 3 * weights, rel=0.1)
