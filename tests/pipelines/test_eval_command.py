"""`trivium eval` on small real models: suites, several answers, another checkpoint, a run, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipelines.checkpoints import identity_of
from pipelines.evaluation import weights_digest
from selfrefine.build import BuildSpec, build_model

Take = Callable[[Path], dict[str, Any]]
ROWS = [
    {"id": f"q{i}", "question": f"letter {i}?", "answer": "ab"[i % 3 == 0], "kind": ("even", "odd")[i % 2]}
    for i in range(30)
]
SPEC = BuildSpec(architecture="llama", hidden_size=48, layers=1, heads=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first` most likely says "a", right for 20 of 30, `second` "b"; and a masked model that knows nothing."""
    root = tmp_path_factory.mktemp("models")
    texts = [row["question"] + row["answer"] for row in ROWS]
    build_model(SPEC.model_copy(update={"architecture": "masked_llama"}), texts, root / "masked", seed=0)
    for name, favourite in {"first": "a", "second": "b"}.items():
        build_model(SPEC, texts, root / name, seed=0)
        _say(root / name, favourite)
    return root


@torch.no_grad()
def _say(path: Path, favourite: str) -> None:
    """Sets the weights so that one letter follows a prompt, twice as likely the favourite, and then the end."""
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    a, b = (tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "ab")
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.full_like(model.lm_head.weight, 0.0))
    layer = model.model.layers[0]
    for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
        linear.weight.zero_()  # what is said depends on the token before alone
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    embedding.zero_()
    embedding[:, 0] = 1.0
    embedding[[a, b]] = torch.nn.functional.one_hot(torch.tensor(1), embedding.shape[1]).float()
    size = embedding.shape[1] ** 0.5  # of what the last norm makes of a single 1
    head[:, :2] = -40.0 / size
    head[[a, b], 0] = 0.0
    head[a if favourite == "a" else b, 0] = math.log(2) / size
    head[tokenizer.eos_token_id, 1] = 0.0
    model.save_pretrained(path)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    data = tmp_path / "letters.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return write(tmp_path / "letters.yaml", data)


def write(path: Path, file: Path, **changes: Any) -> Path:
    values = {
        "version": 1,
        "summary": "letters",
        "data": {"task": "table", "source": str(file.relative_to(path.parent))},
        "problems": len(ROWS),
        "prompt": {"before": "Q: ", "after": " A:"},
        "reward": "exact_match",
        "decoding": {"max_new_tokens": 4},
        **changes,
    }
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return path


def result(runs: Path, run: str, stage: str = "letters") -> dict[str, Any]:
    return json.loads((runs / run / stage / "eval.json").read_text())  # type: ignore[no-any-return]


def trials(runs: Path, run: str, label: str, stage: str = "letters") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (runs / run / stage / label / "trials.jsonl").read_text().splitlines()]


def test_a_checkpoint_against_another(real_children: Any, models: Path, suite: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    done = real_children.trivium(
        "eval",
        models / "second",
        "--suite",
        suite,
        "--against",
        models / "first",
        "--require",
        "better",
        "--runs",
        runs,
    )
    assert done.code == 1, done.text
    assert "--require better is not met: letters" in done.text
    found = result(runs, "eval-second")
    assert [each["label"] for each in found["checkpoints"]] == ["first", "second"]
    accuracy = {each["label"]: each["accuracy"]["value"] for each in found["checkpoints"]}
    assert accuracy == {"first": 20 / 30, "second": 10 / 30}
    (pair,) = found["comparisons"]
    assert (pair["a"], pair["b"]) == ("second", "first")
    assert pair["difference"]["estimate"]["value"] == pytest.approx(-1 / 3)
    assert found["provenance"]["weights"].keys() == {"first", "second"}
    first = trials(runs, "eval-second", "first")[0]
    begun = found["provenance"]["prompts"]["first"]
    assert (begun["tokens"], len(begun["first_ids"])) == (first["prompt_tokens"],) * 2
    assert begun["first_text"].startswith("<|im_start|>user") and "Q: letter 0? A:" in begun["first_text"]
    assert first["prompt"] == [{"role": "user", "content": "Q: letter 0? A:"}]
    assert (runs / "eval-second/report.html").is_file()

    # The other checkpoint alone, compared with the finished run: nothing of it is asked again.
    again = real_children.trivium(
        "eval", models / "first", "--suite", suite, "--against", "eval-second", "--runs", runs
    )
    assert again.code == 0, again.text
    against = result(runs, "eval-first")
    assert [each["label"] for each in against["checkpoints"]] == ["first"]
    (back,) = against["comparisons"]
    assert (back["a"], back["b"], back["roles"]) == ("first", "eval-second/second", ["against"])
    assert back["difference"]["estimate"]["value"] == -pair["difference"]["estimate"]["value"]
    # The same checkpoint twice at temperature 0: identical lines.
    twice = (runs / "eval-second/letters/first/trials.jsonl").read_bytes()
    assert (runs / "eval-first/letters/first/trials.jsonl").read_bytes() == twice


def test_two_that_solve_nothing_show_nothing(real_children: Any, models: Path, suite: Path, tmp_path: Path) -> None:
    call = (
        "eval",
        models / "second",
        "--against",
        models / "first",
        "--require",
        "not-worse",
        "--runs",
        tmp_path / "runs",
    )
    write(suite, tmp_path / "letters.jsonl", prompt={"after": " A:"}, answer={"strict": "boxed"})
    done = real_children.trivium(*call, "--suite", suite)
    assert done.code == 1, done.text
    told = "neither solves any problem, which shows nothing"
    assert f"--require not-worse is not met: letters ({told})" in " ".join(done.text.split())
    assert result(tmp_path / "runs", "eval-second")["comparisons"][0]["verdict"] == told


def test_two_runs_differ_by_problems_that_flipped(
    real_children: Any, models: Path, suite: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    for name in ("first", "second"):
        assert real_children.trivium("eval", models / name, "--suite", suite, "--runs", runs).code == 0
    found = real_children.trivium("runs", "diff", "eval-first", "eval-second", "--runs", runs)
    assert found.code == 0, found.text
    line = next(each for each in found.text.splitlines() if "second − first" in each)
    assert "-33.3" in line and " 10 " in line and " 20 " in line  # "b" is right for ten, "a" for the others
    assert "+q0, +q3" in found.text and "and 10 more" in found.text
    assert found.text.index("second − first") < found.text.index("recipe.stages.letters.checkpoints.first")


def test_more_answers_keep_those_that_are_there(real_children: Any, models: Path, suite: Path, tmp_path: Path) -> None:
    def run(n: int, runs: Path, *more: str) -> Any:
        call = ("eval", models / "first", "--suite", suite, "--k", "1,2", "--n", n, "suite.decoding.temperature=1.0")
        return real_children.trivium(*call, "--runs", runs, *more)

    once, grown = tmp_path / "once", tmp_path / "grown"
    assert (whole := run(4, once)).code == 0, whole.text
    (stage,) = (path.name for path in (once / "eval-first").glob("letters-*"))
    assert run(2, grown).code == 0
    early = trials(grown, "eval-first", "first", stage)
    assert run(4, grown).code == 0
    assert sorted(path.name for path in (grown / f"eval-first/{stage}/shards/first").iterdir()) == ["0-2", "2-4"]
    late = trials(grown, "eval-first", "first", stage)
    assert [each for each in late if each["sample"] < 2] == early
    assert late == trials(once, "eval-first", "first", stage)
    assert [each["sample"] for each in late[:5]] == [0, 1, 2, 3, 0]
    assert len({each["seed"] for each in late}) == 4 * len(ROWS)
    metrics = result(grown, "eval-first", stage)["checkpoints"][0]["metrics"]
    assert {"pass@2", "pass^2", "maj@2"} <= metrics.keys()
    # Each answer is "a" with odds of two to one: both right, or one of two, of 20 problems with "a" and 10 with "b".
    assert metrics["pass^2"]["value"] == pytest.approx((20 * 4 + 10 * 1) / 9 / 30, abs=0.15)
    assert metrics["pass@2"]["value"] == pytest.approx((20 * 8 + 10 * 5) / 9 / 30, abs=0.15)
    assert metrics["pass^2"]["value"] <= metrics["maj@2"]["value"] <= metrics["pass@2"]["value"]


def test_an_evaluation_that_is_killed_ends_the_same(
    real_children: Any, snapshot: Take, models: Path, suite: Path, tmp_path: Path
) -> None:
    call = ("eval", models / "second", "--suite", suite, "chunk=8")
    whole = real_children.trivium(*call, "--runs", tmp_path / "whole")
    assert whole.code == 0, whole.text
    for at in (3, 5, whole.writes - 4):
        struck = real_children.trivium(*call, "--runs", tmp_path / "struck", fault="kill after", at=at)
        assert struck.code == -signal.SIGKILL, struck.text
        resumed = real_children.trivium(*call, "--runs", tmp_path / "struck")
        assert resumed.code == 0, resumed.text
        ends = [snapshot(tmp_path / each) for each in ("struck", "whole")]
        kept = [{name: file for name, file in end.items() if "report" not in name} for end in ends]
        assert kept[0] == kept[1]
        shutil.rmtree(tmp_path / "struck")


def test_suites_add_up_in_one_run(real_children: Any, models: Path, suite: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    other = write(tmp_path / "other.yaml", tmp_path / "letters.jsonl", prompt={"after": "?"})
    assert real_children.trivium("eval", models / "first", "--suite", suite, "--runs", runs).code == 0
    both = real_children.trivium("eval", models / "first", "--suite", other, "limit=10", "--runs", runs)
    assert both.code == 0, both.text
    assert "letters: up to date" in both.text
    assert result(runs, "eval-first", "other")["partial"]
    page = (runs / "eval-first/report.html").read_text()
    assert "letters" in page and "other" in page


def test_a_limit_takes_the_place_of_no_whole_result(
    real_children: Any, models: Path, suite: Path, tmp_path: Path
) -> None:
    def run(*arguments: object) -> Any:
        return real_children.trivium(
            "eval", models / "first", "--suite", suite, *arguments, "--runs", tmp_path / "runs"
        )

    assert run("limit=10").code == 0 and result(tmp_path / "runs", "eval-first")["partial"]
    assert run().code == 0
    whole = trials(tmp_path / "runs", "eval-first", "first")
    for more in ((), ("--plan",)):
        refused = run("limit=10", *more)
        assert refused.code == 2 and len(refused.text.strip().splitlines()) == 1, refused.text
        assert "holds the result on all 30 problems, which limit=10 would replace" in refused.text
    assert trials(tmp_path / "runs", "eval-first", "first") == whole
    assert run("limit=10", "--name", "some").code == 0 and result(tmp_path / "runs", "some")["partial"]
    assert run("limit=30").code == 0 and not result(tmp_path / "runs", "eval-first")["partial"]


def test_rescoring_without_the_model(real_children: Any, models: Path, suite: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert real_children.trivium("eval", models / "first", "--suite", suite, "--runs", runs).code == 0
    same = real_children.trivium(
        "eval", "rescore", "eval-first", "--reward", "exact_match", "--runs", runs, fault="no model"
    )
    assert same.code == 0, same.text
    before = (runs / "eval-first/letters/first/trials.jsonl").read_bytes()
    assert (runs / "eval-first/rescore-exact_match-letters/first/trials.jsonl").read_bytes() == before
    reward = tmp_path / "never.py"
    reward.write_text("def never(prompts, completions, **columns):\n    return [0.0] * len(completions)\n")
    other = real_children.trivium("eval", "rescore", "eval-first", "--reward", f"{reward}:never", "--runs", runs)
    assert other.code == 0, other.text
    old, new = result(runs, "eval-first"), result(runs, "eval-first", "rescore-never-letters")
    right = old["checkpoints"][0]["outcomes"]["correct"]
    assert f"correct → wrong {right}" in other.text
    assert new["checkpoints"][0]["outcomes"]["correct"] == 0
    assert new["suite"]["digest"] != old["suite"]["digest"]
    # The data are looked at: other questions are no longer those that were asked.
    (tmp_path / "letters.jsonl").write_text("".join(json.dumps({**row, "answer": "b"}) + "\n" for row in ROWS))
    refused = real_children.trivium("eval", "rescore", "eval-first", "--reward", "exact_match", "--runs", runs)
    assert refused.code == 2 and "have changed since" in refused.text


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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problems": 31}, "the suite is made of 31 problems and the data hold 30"),
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


def test_suites_are_listed_and_shown(real_children: Any, suite: Path) -> None:
    listed = real_children.trivium("eval", "suites")
    assert listed.code == 0 and "rg:NAME" in listed.text
    shown = real_children.trivium("eval", "show", suite, "-n", 2)
    assert shown.code == 0, shown.text
    assert "user: Q: letter 1? A:" in shown.text and "letter 2" not in shown.text


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


def test_what_a_comparison_takes_from_another_run(
    real_children: Any, models: Path, suite: Path, tmp_path: Path
) -> None:
    """New results there make it due again, answers scored again do not stand for the old, other problems are named
    before anything is asked, and a suite that is not compared fails no requirement."""
    runs, moving = tmp_path / "runs", tmp_path / "moving"
    shutil.copytree(models / "second", moving)

    def run(*arguments: object, **options: Any) -> Any:
        return real_children.trivium("eval", *arguments, "--runs", runs, **options)

    other = write(tmp_path / "other.yaml", tmp_path / "letters.jsonl", prompt={"after": "?"})
    assert run(models / "first", "--suite", other).code == 0
    assert run(moving, "--suite", suite, "--name", "base").code == 0
    gate = run(models / "first", "--suite", suite, "--against", "base", "--require", "better")
    assert gate.code in (0, 1) and "other" not in gate.text.partition("is not met")[2], gate.text
    first = result(runs, "eval-first")["comparisons"][0]["difference"]["estimate"]["value"]
    assert first == pytest.approx(1 / 3)
    shutil.rmtree(moving)
    shutil.copytree(models / "first", moving)
    assert run(moving, "--suite", suite, "--name", "base").code == 0
    assert run("rescore", "base", "--strict", "boxed").code == 0
    again = run(models / "first", "--suite", suite, "--against", "base")
    assert again.code == 0, again.text
    assert result(runs, "eval-first")["comparisons"][0]["difference"]["estimate"]["value"] == 0
    fewer = run(
        models / "first", "--suite", suite, "limit=10", "--against", "base", "--name", "fewer", fault="no model"
    )
    assert fewer.code == 2 and "20 problems are only in base/" in fewer.text, fewer.text
    shutil.copytree(models / "second", tmp_path / "elsewhere/moving")
    refused = run(tmp_path / "elsewhere/moving", "--suite", suite, "--name", "base")
    assert refused.code == 2 and "give this run a --name of its own" in refused.text


def test_a_base_that_is_trained_anew_makes_another_adapter(models: Path, tmp_path: Path) -> None:
    base, adapter = Path(shutil.copytree(models / "first", tmp_path / "base")), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = identity_of(str(adapter)), weights_digest(str(adapter))
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    after = identity_of(str(adapter)), weights_digest(str(adapter))
    assert before[0] != after[0] and before[1] != after[1]
    assert (identity_of("org/name"), weights_digest("org/name")) == ("org/name", None)
