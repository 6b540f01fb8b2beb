"""Results of `trivium eval`: kept, added to, compared, scored again."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import machine
from pipelines.checkpoints import identity_of
from pipelines.errors import RunError
from pipelines.evaluation import find_stored, weights_digest
from pipelines.manifest import Manifest
from tests.pipelines.letters import ROWS, result, trials, write

Take = Callable[[Path], dict[str, Any]]


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


def test_rows_that_are_lost_make_a_result_partial_and_are_a_warning(
    real_children: Any, models: Path, tmp_path: Path
) -> None:
    rows = [row | {"answer": None} if number % 2 else row for number, row in enumerate(ROWS)]
    (tmp_path / "half.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = write(tmp_path / "half.yaml", tmp_path / "half.jsonl", problems=None)

    def run(*arguments: str) -> Any:
        return real_children.trivium(
            "eval", models / "first", "--suite", suite, *arguments, "--runs", tmp_path / "runs"
        )

    assert run().code == 0
    found = result(tmp_path / "runs", "eval-first", "half")
    assert found["partial"] and found["problems"] == {"used": 15, "original": 30}
    assert "15/30 partial" in found["provenance"]["quote"]
    manifest = json.loads((tmp_path / "runs/eval-first/half/manifest.json").read_text())
    assert (manifest["rows_in"], manifest["rows_out"]) == (30, 15)
    said = "15 of the 30 problems of half cannot be used and are left out: 15 of empty (rows 1, 3, 5, …)"
    assert said in manifest["warnings"]
    # It is a result on all that there is, though not on all that there should be.
    assert "holds the result on all 15 problems, which limit=5" in run("limit=5").text


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
    (tmp_path / "other").mkdir()
    shutil.copy(suite, tmp_path / "other/letters.yaml")
    for more in (["--plan"], []):
        another = ("--suite", tmp_path / "other/letters.yaml", "--runs", tmp_path / "runs", *more)
        refused = real_children.trivium("eval", models / "first", *another, fault="no model")
        assert refused.code == 2, refused.text
        assert f"holds the result on the suite {suite}, which {tmp_path / 'other/letters.yaml'} would" in refused.text


def test_rescoring_without_the_model(real_children: Any, models: Path, suite: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (tmp_path / "half.py").write_text(
        "def half(prompts, completions, **columns):\n    return [0.5] * len(completions)\n"
    )
    suite.write_text(f"{suite.read_text()}\nalso: [half.py:half]\n")  # beside the suite, and not where this is called
    asked = real_children.trivium("eval", models / "first", "--suite", suite, "--runs", runs)
    assert asked.code == 0, asked.text
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
    assert run("rescore", "base", "--suite", suite, "--strict", "boxed").code == 0
    again = run(models / "first", "--suite", suite, "--against", "base")
    assert again.code == 0, again.text
    assert result(runs, "eval-first")["comparisons"][0]["difference"]["estimate"]["value"] == 0
    for plan in (["--plan"], []):
        few = ("limit=10", "--against", "base", "--name", "fewer")
        fewer = run(models / "first", "--suite", suite, *few, *plan, fault="no model")
        assert fewer.code == 2 and "20 problems are only in base/" in fewer.text, fewer.text
        assert not (runs / "fewer").exists()
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


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--org--name"
    (place / "snapshots/0123abc").mkdir(parents=True)
    (place / "snapshots/0123abc/config.json").write_text("{}")
    (place / "refs").mkdir()
    (place / "refs/main").write_text("0123abc")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/name"}))
    before = weights_digest(str(adapter))
    assert weights_digest("org/name") == "commit 0123abc"
    (place / "snapshots/0123abc").rename(place / "snapshots/4567def")
    (place / "refs/main").write_text("4567def")
    assert weights_digest("org/name") == "commit 4567def" and weights_digest(str(adapter)) != before


def test_a_run_that_was_asked_data_and_no_suite_has_checkpoints_to_name(tmp_path: Path) -> None:
    (tmp_path / "run/base/checkpoint").mkdir(parents=True)
    (tmp_path / "run/evaluate").mkdir()
    found = {"suite": {"name": "easy-vqa:test"}, "checkpoints": [{"label": "base"}], "provenance": {}}
    (tmp_path / "run/evaluate/eval.json").write_text(json.dumps(found))
    settings = {"settings": {"suite": None}}
    Manifest(
        stage="evaluate", kind="evaluate", digest="0", source=settings, inputs={}, seed=0, **machine.provenance(),
        started="2026-01-01T00:00:00+00:00", seconds=1.0, attempts=1, peak_memory_mib=1, rows_in=None, rows_out=1,
        dropped={}, numbers={}, files={},
    ).write(tmp_path / "run/evaluate")  # fmt: skip
    way_out = f"evaluated there: easy-vqa:test, of its recipe's data; name a checkpoint instead: {tmp_path}/run/base"
    with pytest.raises(RunError, match=re.escape(way_out)):
        find_stored(tmp_path / "run", "easy-vqa")
