"""`trivium eval` on small real models: what is asked, shown and refused."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoTokenizer
from typer.testing import CliRunner

from engines.base import EngineError
from engines.checkpoint import check_checkpoint, load_model, load_processor
from pipelines.checkpoints import chat_template, layers_of, root_of
from pipelines.cli import app
from pipelines.cost.sizes import size_at
from selfrefine.latent.config import LatentReasonerConfig
from selfrefine.latent.model import LatentReasoner
from tests.pipelines.letters import ROWS, result, write


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--suite NAME[,NAME]"),
        (("--suite", "gms8k"), "no suite is called `gms8k`; did you mean `gsm8k`?"),
        (("--suite", "LETTERS", "--k", "0"), "k counts answers, so it is at least 1"),
        (("--suite", "LETTERS", "--k", "many"), "give numbers, such as --k 1,8"),
        (("--suite", "LETTERS", "--k", "4"), "4 greedy answers are one answer; give suite.decoding.temperature"),
        (("--suite", "LETTERS", "--k", "1,4", "--n", "1"), "k: pass@4 takes as many answers to a problem; n is 1"),
        (("--suite", "LETTERS", "--require", "better"), "name what with, --against BASE"),
        (("--suite", "LETTERS", "--against", "nowhere"), "nowhere: no such model directory"),
        (("--suite", "LETTERS", "--against", "MASKED"), "evaluate each by itself"),
        (("--suite", "LETTERS", "limt=3"), "unknown key; did you mean `limit`?"),
        (("--suite", "LETTERS", "suite.prompt.befor=x"), "prompt.befor: unknown key; did you mean `before`?"),
        (("--suite", "LETTERS", "suite.data.take=x"), "take is a whole number of 1 or more, not 'x'"),
        (("--suite", "LETTERS", "name=mine"), "`name=mine`: the run's name is an option: --name"),
        (("--suite", "LETTERS", "suite=gsm8k"), "`suite=gsm8k`: what is measured is an option: --suite;"),
        (("--suite", "missing.yaml"), "missing.yaml: cannot be read"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], words: str, real_children: Any, models: Path, suite: Path, tmp_path: Path
) -> None:
    names = {"LETTERS": str(suite), "MASKED": str(models / "masked")}
    call = [names.get(each, each) for each in arguments]
    done = real_children.trivium("eval", models / "first", *call, "--runs", tmp_path / "runs", fault="no model")
    assert done.code == 2, done.text
    assert words in done.text
    assert "Traceback" not in done.text and len(done.text.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_checkpoints_by_a_comma_are_told_of_against(models: Path, suite: Path, tmp_path: Path) -> None:
    both = f"{models / 'first'},{models / 'second'}"
    done = CliRunner().invoke(app, ["eval", both, "--suite", str(suite), "--runs", str(tmp_path / "runs")])
    assert done.exit_code == 2 and done.output == (
        f"error: {both}: one checkpoint is evaluated at a time; --against compares it with another: "
        f"trivium eval {models / 'second'} --against {models / 'first'}\n"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problems": 31}, "letters: the suite is made of 31 problems and the data hold 30"),
        ({"reward": "number"}, "gold answers are not accepted by number"),
        ({"rewards": "number"}, "rewards: unknown key; did you mean `reward`?"),
        ({"data": {"task": "tabel"}}, "no task is called 'tabel'; did you mean 'table'?"),
        ({"answer": {"strict": "boxd"}}, "boxd"),
        ({"version": None}, "version: is missing"),
        ({"decoding": {"max_new_tokens": 4096}}, "is more than the context of first"),
    ],
)
def test_a_plan_looks_at_the_suite(
    changes: dict[str, Any], words: str, real_children: Any, models: Path, suite: Path, tmp_path: Path
) -> None:
    write(suite, tmp_path / "letters.jsonl", **changes)
    done = real_children.trivium(
        "eval", models / "first", "--suite", suite, "--plan", "--runs", tmp_path / "runs", fault="no model"
    )
    assert done.code == 2, done.text
    assert words in done.text and "Traceback" not in done.text


def test_a_checkpoint_without_a_chat_template(real_children: Any, models: Path, suite: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(models / "first", tmp_path / "plain"))
    (plain / "chat_template.jinja").unlink()
    done = real_children.trivium("eval", plain, "--suite", suite, "--runs", tmp_path / "runs", fault="no model")
    assert done.code == 2 and "has no chat template" in done.text


@pytest.mark.parametrize("name", ["config.json", "adapter_config.json", "tokenizer_config.json"])
def test_a_checkpoint_with_half_a_file(
    name: str, real_children: Any, models: Path, suite: Path, tmp_path: Path
) -> None:
    half = Path(shutil.copytree(models / "first", tmp_path / "half"))
    (half / "chat_template.jinja").unlink()
    (half / "adapter_model.safetensors").touch()
    (half / name).write_text('{"base_model_name_or_path": "')
    call = ("--suite", suite, "--plan", "--runs", tmp_path / "runs")
    done = real_children.trivium("eval", half, *call, fault="no model")
    assert done.code == 2 and f"{half / name}: is not valid JSON (Unterminated string" in done.text, done.text
    assert "Traceback" not in done.text and len(done.text.strip().splitlines()) == 1


@pytest.mark.parametrize("names", [("one",), ("one", "two"), ("one", "two", "three")])
def test_an_adapter_that_is_its_own_base(
    names: tuple[str, ...], real_children: Any, suite: Path, tmp_path: Path
) -> None:
    """By way of others too, and under another of its names."""
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    for name, base in zip(names, (*names[1:], "link/one"), strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").write_bytes(bytes([2] + [0] * 7) + b"{}")
        said = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / base)}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(said))
    line = f"{names[-1]}/adapter_config.json: base_model_name_or_path {tmp_path}/link/one leads back to the adapter"
    done = real_children.trivium("eval", tmp_path / "one", "--suite", suite, "--runs", tmp_path / "runs")
    assert done.code == 2 and line in done.text, done.text
    assert "Traceback" not in done.text and len(done.text.strip().splitlines()) == 1
    for look in (check_checkpoint, load_model, load_processor, root_of, layers_of, chat_template, size_at):
        with pytest.raises(EngineError, match="leads back to the adapter itself"):
            look(str(tmp_path / "one"))


@pytest.mark.parametrize("plan", [("--plan",), ()])
def test_a_template_that_refuses_a_system_prompt(
    plan: tuple[str, ...], real_children: Any, models: Path, suite: Path, tmp_path: Path
) -> None:
    strict = Path(shutil.copytree(models / "first", tmp_path / "strict"))
    template = (strict / "chat_template.jinja").read_text()
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    (strict / "chat_template.jinja").write_text(refusal + template)
    call = ("--suite", suite, "suite.prompt.system=Be brief.", "--runs", tmp_path / "runs")
    done = real_children.trivium("eval", strict, *call, *plan)
    assert done.code == 2, done.text
    said = "refuses turns of system, user (System role not supported); put the system prompt into the question"
    assert said in done.text and "Traceback" not in done.text


def test_the_versions_of_all_rewards_of_a_suite_count(suite: Path, tmp_path: Path) -> None:
    from pipelines.stages.evaluate import EvaluateStage

    also = tmp_path / "also.py"
    write(suite, tmp_path / "letters.jsonl", also=[f"{also}:extra"])
    stage = EvaluateStage(suite=str(suite))
    found = []
    for value in (0.25, 0.75, 0.25):
        also.write_text(f"def extra(prompts, completions, **columns):\n    return [{value}] * len(completions)\n")
        found.append(dict(stage.versions()))
    assert found[0] == found[2] != found[1]


def test_a_template_that_begins_twice_is_named(real_children: Any, models: Path, suite: Path, tmp_path: Path) -> None:
    """A masked-diffusion model, so another engine tells of its prompts too."""
    twice = Path(shutil.copytree(models / "masked", tmp_path / "twice"))
    config = json.loads((twice / "tokenizer_config.json").read_text())
    (twice / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": "<|im_start|>"}))
    template = (twice / "chat_template.jinja").read_text()
    (twice / "chat_template.jinja").write_text("<|im_start|>" + template)
    runs = tmp_path / "runs"
    for checkpoint, number in ((twice, 2), (models / "masked", 0)):
        call = ("limit=4", "engine.block_length=4", "engine.steps_per_block=2", "--runs", runs)
        done = real_children.trivium("eval", checkpoint, "--suite", suite, *call)
        assert done.code == 0, done.text
        run = runs / f"eval-{checkpoint.name}/letters"
        assert result(runs, run.parent.name)["provenance"]["prompts"][checkpoint.name]["bos_tokens"] == number
        warned = [each for each in json.loads((run / "manifest.json").read_text())["warnings"] if "BOS" in each]
        assert warned == (["twice: prompts begin with 2 BOS tokens in a row; mend its chat template"] if number else [])


def test_suites_are_listed_and_shown(real_children: Any, models: Path, suite: Path) -> None:
    listed = real_children.trivium("eval", "suites")
    assert listed.code == 0 and "rg:NAME" in listed.text
    shown = real_children.trivium("eval", "show", suite, "-n", 2)
    assert shown.code == 0, shown.text
    assert "user: Q: letter 1? A:" in shown.text and "letter 2" not in shown.text
    read = real_children.trivium("eval", "show", suite, "-n", 2, "--checkpoint", models / "first")
    asked = [{"role": "user", "content": "Q: letter 1? A:"}]
    tokenizer = AutoTokenizer.from_pretrained(models / "first")
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert read.code == 0 and f"\n{text}\ngold:" in read.text and len(text) > len("user: Q: letter 1? A:"), read.text
    absent = real_children.trivium("eval", "show", suite, "--checkpoint", models / "nobody")
    assert absent.code == 2 and "nobody" in absent.text and "Traceback" not in absent.text, absent.text


def test_what_a_run_trains_on_is_looked_for_in_the_suite(tmp_path: Path) -> None:
    from pipelines.recipe import Recipe
    from pipelines.trained_on import overlap_of, warning
    from tasks.problem import Problem

    planted = "How many apples does Ann have when she buys three bags of four apples and then eats two of them?"
    (tmp_path / "train.jsonl").write_text(
        json.dumps({"id": "t1", "question": f"Listen. {planted}", "answer": "10"})
        + "\n"
        + json.dumps({"id": "t2", "question": "What is left of nine when four are gone?", "answer": "5"})
    )
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "data": {
                "labelled": {"task": "table", "source": str(tmp_path / "train.jsonl")},
                "made": {"task": "sudoku"},
            },
            "stages": [{"kind": "tune"}, {"kind": "recur", "data": "made", "name": "solver"}],
        }
    )
    found = overlap_of(recipe, [Problem("p1", planted, "10"), Problem("p2", "What is two and two?", "4")])
    assert found is not None
    assert (found["sections"], found["rows"], found["found"]) == (["labelled"], 2, 1)
    assert found["first"] == {"p1": {"13 words in a row": "labelled/t1"}}
    assert [line.partition(";")[0] for line in warning(found)] == [
        "1 of 2 problems are in the training data too, such as p1 (13 words in a row, row labelled/t1)"
    ]
    assert overlap_of(Recipe.model_validate({"name": "x", "stages": [{"kind": "report"}]}), []) is None


def test_a_suite_under_stress(real_children: Any, models: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    told = [{**row, "question": f"Ann buys {i} apples on day {i}. Which letter is hers?"} for i, row in enumerate(ROWS)]
    (tmp_path / "told.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    suite = write(tmp_path / "letters.yaml", tmp_path / "told.jsonl")
    call = ("eval", models / "first", "--suite", suite, "stress.scopes=[0.5,1.0]", "stress.severities=[1,2]")
    done = real_children.trivium(*call, "--runs", runs)
    assert done.code == 0, done.text
    found = result(runs, "eval-first")["stress"]
    (report,) = found["reports"].values()
    assert [(each["scope"], each["severity"]) for each in report["cells"]] == [(0.5, 1), (0.5, 2), (1.0, 1), (1.0, 2)]
    # The model reads the end of the prompt alone, so nothing around the question can change what it says.
    assert report["clean"]["accuracy"]["value"] == pytest.approx(20 / 30)
    assert all(each["difference"]["estimate"]["value"] == 0 for each in report["cells"])
    lines = [json.loads(line) for line in (runs / "eval-first/letters/first/stress.jsonl").read_text().splitlines()]
    assert len(lines) + 5 * sum(found["dropped"].values()) == 5 * len(ROWS)
    harder = [each for each in lines if each["stress"] == {"scope": 1.0, "severity": 2}]
    assert harder and all(len(each["prompt"][0]["content"]) > 80 for each in harder)
    refused = real_children.trivium("eval", models / "first", "--suite", suite, "stress.scopes=[2]", "--runs", runs)
    assert refused.code == 2 and "scopes are two or more rising numbers" in refused.text


def test_a_split_and_what_a_run_says_of_it(real_children: Any, models: Path, tmp_path: Path) -> None:
    rows = [
        {
            "id": f"{a}{b}{c}-{n}",
            "question": f"{a} {b} {c}?",
            "answer": "ab"[a % 2],
            "first": a,
            "second": b,
            "third": c,
        }
        for a, b, c, n in itertools.product(range(6), range(6), range(6), range(2))
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    modules = "modules:\n  left: {parents: [first, second]}\n  right: {parents: [second, third]}\n"
    (tmp_path / "graph.yaml").write_text("roots: [first, second, third]\n" + modules)
    split = real_children.trivium(
        "eval", "split", tmp_path / "graph.yaml", tmp_path / "rows.jsonl", tmp_path / "split", "--train", 60
    )
    assert split.code == 0, split.text
    letters = write(tmp_path / "letters.yaml", tmp_path / "split/test.jsonl", problems=None)
    runs = tmp_path / "runs"
    done = real_children.trivium("eval", models / "first", "--suite", letters, "--runs", runs)
    assert done.code == 0, done.text
    kinds = result(runs, "eval-first")["checkpoints"][0]["kinds"]
    said = real_children.trivium("eval", "composed", "eval-first", tmp_path / "split/split.json", "--runs", runs)
    assert said.code == 0, said.text
    assert "with respect to this module graph" in said.text
    for kind in ("composable", "blocked"):
        assert f"accuracy {kind}: {kinds[kind]['value']:.3f}" in said.text
    # The split lies beside the data, so the result and its report have the same numbers.
    composition = result(runs, "eval-first")["composition"]
    assert composition["reason"] is None
    accuracy = composition["reports"]["first"]["accuracy"]
    assert {kind: accuracy[kind]["value"] for kind in kinds} == {kind: kinds[kind]["value"] for kind in kinds}
    page = (runs / "eval-first/report.html").read_text()
    assert "Unseen combinations" in page and 'id="composition"' in page
    assert real_children.trivium("eval", "rescore", "eval-first", "--reward", "exact_match", "--runs", runs).code == 0
    assert result(runs, "eval-first", "rescore-exact_match-letters")["composition"] == composition


def test_under_a_launcher_it_says_in_a_line_that_it_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["eval", "somewhere", "--suite", "gsm8k"])
    assert done.exit_code == 2 and "runs in one process, and torchrun started 2" in done.output, done.output


def test_a_reasoner_is_asked_grids_that_it_can_read(tmp_path: Path) -> None:
    config = LatentReasonerConfig(alphabet="_1234", seq_len=3, hidden_size=32, heads=4, updates=2, segments=2)
    LatentReasoner(config).save_pretrained(tmp_path / "reasoner")
    rows = [{"id": "words", "question": "one?", "answer": "1"}, {"id": "long", "question": "1" * 17, "answer": "1"}]
    image = [{"id": "seen", "question": "1_3", "answer": "123", "image": str(tmp_path / "board.png")}]
    Image.new("RGB", (8, 8)).save(tmp_path / "board.png")
    board = {"id": "board", "question": "1_3", "answer": "123"}
    runs = tmp_path / "runs"

    def ask(asked: list[dict[str, str]], *more: str) -> tuple[int, str]:
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
        suite = write(tmp_path / "grids.yaml", tmp_path / "rows.jsonl", problems=len(asked))
        call = ["eval", str(tmp_path / "reasoner"), "--suite", str(suite), "--runs", str(runs), *more]
        done = CliRunner().invoke(app, call)
        return done.exit_code, done.output

    for more in ([], ["--plan"]):
        code, said = ask(rows, *more)
        assert code == 2 and "reasoner can read none of the 2 problems, most often: 'o' is no cell" in said, said
        assert len(said.strip().splitlines()) == 1
        code, said = ask(image, *more)
        assert code == 2 and "most often: a recurrent reasoner reads no images; ask it a suite of grids" in said, said
    code, said = ask([board], "engine.kind=transformers", "--plan")
    assert code == 2 and "reasoner: is for engine latent, not for transformers; give engine.kind=latent" in said, said
    code, said = ask([board], "--k", "4", "suite.decoding.temperature=0.7")
    assert code == 2 and "a recurrent reasoner draws nothing, 4 answers are one; give k: 1, n: 1" in said, said
    assert not runs.exists()
    code, said = ask([*rows, board], "--plan")
    assert code == 0, said


def test_two_suites_of_one_name_in_a_call_are_refused(models: Path, suite: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other/letters.yaml", tmp_path / "other/letters.jsonl")
    call = ["eval", str(models / "first"), "--suite", f"{suite},{other}", "--runs", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 2 and f"{suite},{other}: both are called letters; give" in done.output, done.output
    assert "(--name)" in done.output and not (tmp_path / "runs").exists()
