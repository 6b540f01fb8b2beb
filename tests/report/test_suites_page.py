"""The page of several suites says what each `eval.json` and each `trials.jsonl` says."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from statsmodels.stats.multitest import multipletests

from eval.compare import Evaluated
from eval.composition.split import CLASSES
from eval.stress.grid import Cell
from eval.stress.report import stress_report
from eval.tally import by_problem, tally
from eval.trial import Trial, read
from pipelines.composed import composed
from pipelines.errors import RunError
from pipelines.eval_tables import comparison_table, result_table
from pipelines.evaluation import stored
from pipelines.report import write_report
from pipelines.report.breakdown import by_length
from pipelines.report.measures import Measures, measure_all, metric_curve
from pipelines.report.overview import overview, published_for
from pipelines.report.run import read_run
from pipelines.report.seeds import combine, render_seeds
from pipelines.rescore import rescore
from tests.report.reading import Page
from tests.report.suites import CHECKPOINTS

SUITES = ("sums", "shapes", "words")


@pytest.fixture(scope="module")
def page(suites_report: Path) -> Page:
    return Page(suites_report.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(suites_run: Path) -> dict[str, Any]:
    return {name: json.loads((suites_run / name / "eval.json").read_text()) for name in SUITES}


def numbers_of(estimate: Mapping[str, Any]) -> list[float]:
    return [estimate[key] for key in ("value", "low", "high")]


def trials_of(run: Path, suite: str, checkpoint: str) -> list[Trial]:
    return list(read(run / suite / checkpoint / "trials.jsonl"))


def test_suites_by_checkpoints(page: Page, results: dict[str, Any]) -> None:
    head, *body = page.tables["suites"]
    assert head[0] == ["Suite", *CHECKPOINTS, "Published"]
    for (texts, numbers), name in zip(body, SUITES, strict=True):
        result = results[name]
        expected = [result["problems"]["used"], 4]
        if name == "shapes":  # one answer is right of all of them
            expected.append(result["baseline"]["value"])
        for each in result["checkpoints"]:
            shares = [each["outcomes"][outcome] / each["trials"] for outcome in ("unparsed", "truncated", "ungraded")]
            expected += [*numbers_of(each["accuracy"]), *filter(None, shares)]
        assert numbers == [*expected, *([0.655] if name == "sums" else [])]
        assert texts[0].startswith(name)
    assert "a larger model" in body[0][0][-1] and "its report, table 2" in body[0][0][-1]
    assert body[1][0][-1] == "–"


def test_differences_are_adjusted_over_all_suites(page: Page, results: dict[str, Any]) -> None:
    _, *body = page.tables["differences"]
    compared = [(name, each) for name in SUITES for each in results[name]["comparisons"]]
    adjusted = multipletests([each["difference"]["p"] for _, each in compared], method="holm")[1]
    for (texts, numbers), (name, each), p in zip(body, compared, adjusted, strict=True):
        assert texts[0].startswith(name) and "tuned − base, against" in texts[0]
        assert numbers[:2] == each["shares"]
        assert numbers[2:5] == numbers_of(each["difference"]["estimate"])
        assert numbers[5] == pytest.approx(p, rel=1e-12)
        assert numbers[6:] == [len(each["gained"]), len(each["lost"])]
        assert each["verdict"] in texts[5] and "problems show a difference of" in texts[5]
    assert page.numbers["headline-answers"] == sum(
        each["trials"] for result in results.values() for each in result["checkpoints"]
    )


def test_what_is_graded_once_more_takes_nothing_from_the_others(suites_run: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    result = json.loads((root / "words" / "eval.json").read_text())
    result["provenance"]["rescored"] = {"stage": "words"}
    (root / "words" / "eval.json").write_text(json.dumps(result))
    others = [name for name in SUITES if name != "words"]
    compared = [each for name in others for each in json.loads((root / name / "eval.json").read_text())["comparisons"]]
    adjusted = multipletests([each["difference"]["p"] for each in compared], method="holm")[1]
    measured = measure_all(stored(root))
    found = overview(read_run(root), measured)
    assert [pair.measures.key for pair in found.pairs] == others
    assert [pair.p for pair in found.pairs] == pytest.approx(adjusted.tolist()) and found.tested == len(others)


def test_problems_that_a_comparison_leaves_out_are_told(suites_run: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    result = json.loads((root / "words" / "eval.json").read_text())
    result["comparisons"][0]["left_out"] = 3
    (root / "words" / "eval.json").write_text(json.dumps(result))
    before, after = (
        [column.header for column in comparison_table(stored(place)).columns] for place in (suites_run, root)
    )
    assert "left out" not in before and "left out" in after
    page = Page(write_report(root).read_text())
    told = [texts for texts, _ in page.tables["differences"] if "3 ungraded, left out" in texts[4]]
    assert len(told) == 1 and told[0][0].startswith("words")


def test_metrics_and_phases_are_those_of_the_json(page: Page, results: dict[str, Any]) -> None:
    for number, name in enumerate(SUITES, 1):
        checkpoints = results[name]["checkpoints"]
        _, *body = page.tables[f"metrics-{number}"]
        assert [texts[0].removesuffix(" %") for texts, _ in body] == ["pass@4", "pass^4", "maj@4", "consistency@4"]
        for texts, numbers in body:
            metric = texts[0].removesuffix(" %")
            assert numbers == [value for each in checkpoints for value in numbers_of(each["metrics"][metric])]
        _, *body = page.tables[f"phases-{number}"]
        for (texts, numbers), each in zip(body, checkpoints, strict=True):
            assert texts[0] == each["label"]
            assert numbers == [
                value for phase in each["phases"] for value in (phase["share"], phase["failed"], phase["reached"])
            ]


def test_points_are_those_of_the_json(page: Page, results: dict[str, Any]) -> None:
    _, (texts, numbers) = page.tables["protocol-3"]
    measures = [each["protocol"][0] for each in results["words"]["checkpoints"]]
    assert [measure["full"] for measure in measures] == [400, 400] and texts[0].startswith("first of")
    assert numbers == [400, *(400 * value for each in measures for value in numbers_of(each["estimate"]))]
    assert not any(key.startswith("protocol") and key != "protocol-3" for key in page.tables)


def test_equal_warnings_are_gathered(suites_run: Path, tmp_path: Path) -> None:
    """Those that differ in their numbers alone are one line with all of them inside; others stay by themselves."""
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    advice = "raise decoding.max_new_tokens ({} are right overall, 72.0% among the finished)"
    said = {
        "sums": [f"base: 3.1% truncated: {advice.format('61.0%')}", "tuned: k = 4: too few"],
        "shapes": [f"base: 14.2% truncated: {advice.format('62.5%')}", f"tuned: 3% truncated: {advice.format('1%')}"],
        "words": [],
    }
    for name, warnings in said.items():
        path = root / name / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "warnings": warnings}))
        result = json.loads((root / name / "eval.json").read_text())
        (root / name / "eval.json").write_text(json.dumps({**result, "partial": True}))
    page = Page(write_report(root).read_text())
    warns = [tag for tag, values in page.elements if values.get("class") == "warn"]
    assert sorted(warns) == ["details", "p", "p"]
    told = " ".join("".join(page.text).split())
    assert "3 times: …% truncated: raise decoding.max_new_tokens (…% are right overall, 72.0% among" in told
    assert "In sums, shapes." in told
    for line in ("sums (base): 3.1% truncated", "shapes (base): 14.2% truncated", "sums (tuned): k = 4: too few."):
        assert line in told
    assert "These are not results of the suites: sums (" in told and "shapes (" in told


def test_points_stand_in_the_terminal(suites_run: Path, results: dict[str, Any]) -> None:
    table = result_table(stored(suites_run))
    suites, labels, reported = (list(table.columns[place].cells) for place in (0, 1, -1))
    cells = dict(zip(zip(suites, labels, strict=True), reported, strict=True))
    for each in results["words"]["checkpoints"]:
        points = 400 * each["protocol"][0]["estimate"]["value"]
        assert cells["words", each["label"]] == f"first {points:.1f} of 400"
    assert cells["sums", "base"] == ""


def test_factors_are_those_of_the_json(page: Page, results: dict[str, Any]) -> None:
    for number, name in enumerate(SUITES, 1):
        base, tuned = (each["factors"]["kind"] for each in results[name]["checkpoints"])
        _, *body = page.tables[f"by-1-{number}"]
        assert [texts[0] for texts, _ in body] == list(base)
        for texts, numbers in body:
            found = (base[texts[0]], tuned[texts[0]])
            assert numbers == [value for each in found for value in (*numbers_of(each), each["n"])]


def test_lengths_are_those_of_the_trials(page: Page, suites_run: Path) -> None:
    _, *body = page.tables["by-2-1"]
    seen = dict.fromkeys(CHECKPOINTS, 0)
    for texts, numbers in body:
        low, _, high = texts[0].partition("–")
        rest = list(numbers)
        for checkpoint in CHECKPOINTS:
            shares: dict[str, list[float]] = defaultdict(list)
            for trial in trials_of(suites_run, "sums", checkpoint):
                if int(low) <= (trial.completion_tokens or 0) <= int(high or low) and trial.score is not None:
                    shares[trial.problem_id].append(trial.score)
                    seen[checkpoint] += 1
            if shares:
                value, *_, n = rest[:4]
                rest = rest[4:]
                assert n == len(shares)
                assert value == pytest.approx(sum(sum(each) / len(each) for each in shares.values()) / n)
        assert not rest
    assert seen == dict.fromkeys(CHECKPOINTS, 480)  # each answer is in one group


def test_lengths_that_are_all_alike_say_nothing(suites_run: Path) -> None:
    result = read_run(suites_run).evaluations[0].evaluated()[0]
    for lengths in ([5] * 9, [None] * 9):
        trials = [
            trial.model_copy(update={"completion_tokens": length})
            for trial, length in zip(result.trials[:9], lengths, strict=True)
        ]
        assert by_length("s", [type(result)("a", {}, trials)]) is None
    two = [
        trial.model_copy(update={"completion_tokens": length})
        for trial, length in zip(result.trials, (1, 1, 8, None), strict=False)
    ]
    found = by_length("s", [type(result)("a", {}, two)])
    assert found is not None
    assert ([name for name, _ in found.rows], found.unknown) == (["1", "2–8"], 1)


def test_curves_pass_through_the_metrics_of_the_json(suites_run: Path, results: dict[str, Any]) -> None:
    for each in results["sums"]["checkpoints"]:
        tallies = [tally(trials) for trials in by_problem(trials_of(suites_run, "sums", each["label"])).values()]
        for name in ("pass@", "pass^", "maj@"):
            curve = metric_curve(name, tallies)
            assert len(curve) == 4
            assert curve[0] == pytest.approx(each["metrics"]["pass@1"]["value"])
            assert curve[3] == pytest.approx(each["metrics"][f"{name}4"]["value"])


def test_a_figure_is_not_that_of_another_suite(suites_run: Path, tmp_path: Path, measured: list[Measures]) -> None:
    """The suite's file has changed since, or the evaluation set its keys otherwise."""
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    path = root / "sums" / "manifest.json"
    manifest = json.loads(path.read_text())
    found = published_for(read_run(root), measured[0])
    assert found is not None and found.value == 0.655
    assert published_for(read_run(root), measured[1]) is None
    for change in ({"versions": {"suite": "0" * 12}}, {"settings": {"overrides": {"decoding.temperature": 1}}}):
        source = {key: {**manifest["source"][key], **change.get(key, {})} for key in ("settings", "versions")}
        path.write_text(json.dumps({**manifest, "source": {**manifest["source"], **source}}))
        assert published_for(read_run(root), measured[0]) is None


def test_a_stress_grid_is_that_of_the_json(suites_run: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    recipe = yaml.safe_load((root / "recipe.yaml").read_text())
    (root / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "stages": recipe["stages"][2:]}))
    first = {
        number: [each for each in trials_of(root, "words", "tuned") if each.sample == number] for number in range(4)
    }
    places = [(0, 0), (0.5, 1), (0.5, 2), (1, 1), (1, 2)]
    cells = [
        (Cell(*place), [each.model_copy(update={"sample": 0}) for each in first[number % 4]])
        for number, place in enumerate(places)
    ]
    stress = {"reports": {"tuned": stress_report(cells).as_json()}, "dropped": {"too short": 3}}
    result = json.loads((root / "words" / "eval.json").read_text())
    (root / "words" / "eval.json").write_text(json.dumps({**result, "stress": stress}))
    page = Page(write_report(root).read_text())
    head, *body = page.tables["stress-1"]
    assert head[0] == ["Share touched", "severity 1", "severity 2"]
    found = [number for _, numbers in body for number in numbers]
    cells_shown = stress["reports"]["tuned"]["cells"]
    assert found == [
        value
        for each in cells_shown
        for value in (each["accuracy"]["value"], *numbers_of(each["difference"]["estimate"]))
    ]
    assert "Not put under stress: 3 problems, too short." in " ".join("".join(page.text).split())


def test_unseen_combinations_are_those_of_the_json(suites_run: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    recipe = yaml.safe_load((root / "recipe.yaml").read_text())
    (root / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "stages": recipe["stages"][:1]}))
    ids = sorted({trial.problem_id for trial in trials_of(root, "sums", "base")})
    kinds = dict(zip(ids, itertools.cycle(CLASSES), strict=False))
    asked = {trial.problem_id: trial.prompt[-1]["content"] for trial in trials_of(root, "sums", "base")}
    rows = [
        {"id": each, "question": asked[each], "kind": kinds[each], "combo": f"c{n // 3}", "blocked_by": ""}
        for n, each in enumerate(ids)
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "split.json").write_text(json.dumps({"graph": ["z <- <a>, b"], "tied": True, "covering": False}))
    results = [Evaluated(label, {}, trials_of(root, "sums", label)) for label in CHECKPOINTS]
    assert composed({"source": str(tmp_path / "rows.jsonl")}, results) == {}
    found = composed({"source": str(tmp_path / "test.jsonl")}, results)
    path = root / "sums" / "eval.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | found))
    page = Page(write_report(root).read_text())
    _, *body = page.tables["composition"]
    for (texts, numbers), label in zip(body, CHECKPOINTS, strict=True):
        report = found["composition"]["reports"][label]
        cells = [value for each in report["accuracy"].values() for value in (*numbers_of(each), each["n"])]
        assert texts[0] == label
        assert numbers == [*cells, *(value for each in report["gaps"].values() for value in numbers_of(each))]
    assert "with tied modules: z <- <a>, b." in " ".join("".join(page.text).split())
    (tmp_path / "split.json").write_text("{}")
    path.write_text(json.dumps(json.loads(path.read_text()) | composed({"source": f"{tmp_path}/test.jsonl"}, results)))
    assert "no split.json of a composable split" in write_report(root).read_text()


def test_a_phase_that_no_answer_of_a_checkpoint_came_to_is_left_open(suites_run: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    path = root / "sums" / "eval.json"
    result = json.loads(path.read_text())
    del result["checkpoints"][0]["phases"][-1]
    path.write_text(json.dumps(result))
    _, *body = Page(write_report(root).read_text()).tables["phases-1"]
    assert body[0][0][-1] == "–" != body[1][0][-1] and len(body[0][0]) == len(body[1][0])


def test_one_suite_is_shown_in_depth(suites_run: Path, tmp_path: Path) -> None:
    """And what an earlier recipe evaluated is no part of the run any more."""
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    recipe = yaml.safe_load((root / "recipe.yaml").read_text())
    (root / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "stages": recipe["stages"][:1]}))
    page = Page(write_report(root).read_text())
    assert "suites" not in page.tables and {"accuracy", "comparisons", "metrics", "phases"} <= page.tables.keys()
    assert page.numbers["headline-after"] == page.tables["accuracy"][2][1][0]
    assert "by a larger model (accuracy; its report, table 2)." in " ".join("".join(page.text).split())


def test_answers_that_were_scored_again_stand_below_the_first(suites_run: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(suites_run, tmp_path / "run"))
    (again,) = rescore(root, None, {"strict": "last_number"}, "sums")
    page = Page(write_report(root).read_text())
    names = [texts[0] for texts, _ in page.tables["suites"][1:]]
    assert names[1].startswith("sums, scored again (exact_match, last_number)")
    assert [name[:5] for name in names] == ["sums1", "sums,", "shape", "words"]
    accuracy = again.result["checkpoints"][0]["accuracy"]
    assert page.tables["suites"][2][1][2:5] == numbers_of(accuracy)
    assert (page.numbers["headline-answers"], len(page.tables["suites"])) == (1760, 5)  # they are asked once


def test_a_suite_evaluated_twice_is_told_apart(suites_run: Path) -> None:
    first = read_run(suites_run).evaluations[2]
    measured = measure_all([first, replace(first, name="words-2")])
    assert [each.title for each in measured] == ["words (words)", "words (words-2)"]


def test_seeds_show_every_suite(suites_run: Path, tmp_path: Path) -> None:
    root, names = tmp_path / "seeds", ("shapes", "words")
    for seed in (0, 1):
        for name in names:
            shutil.copytree(suites_run / name, root / f"seed-{seed}" / name)
    recipe = yaml.safe_load((suites_run / "recipe.yaml").read_text())
    stages = [stage for stage in recipe["stages"] if stage["name"] in names]
    (root / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "stages": stages, "seeds": [0, 1]}))
    runs = [read_run(root / f"seed-{seed}") for seed in (0, 1)]
    page = Page(render_seeds(root, runs))
    for number, suffix in enumerate(("", "-2")):
        arms = combine([run.evaluations[number] for run in runs], [run.name for run in runs])
        _, (_, base), (_, tuned) = page.tables[f"arms{suffix}"]
        assert (base[0], tuned[0]) == (arms[0].accuracy.value, arms[1].accuracy.value)
    shutil.rmtree(root / "seed-1" / "words")
    with pytest.raises(RunError, match="`words` is not finished for every seed"):
        render_seeds(root, [read_run(root / f"seed-{seed}") for seed in (0, 1)])
