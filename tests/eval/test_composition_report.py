"""What a split's report says of trials: accuracies by class, gaps over combinations, and nothing it cannot know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval.composition.adapters import Factored, chain_factors, chain_graph
from eval.composition.files import ABOUT, write
from eval.composition.report import CompositionReport, composition_report
from eval.composition.split import Split, split
from eval.trial import Trial, TrialError
from tasks.problem import Problem, TaskError

Make = Callable[..., Trial]


@pytest.fixture(scope="module")
def made() -> Split:
    signs = "pqrstu"
    chains = [f"{a} {b} {c}" for a in signs for b in signs for c in signs]
    rows = [Problem(f"{chain} {n}", chain, "1") for chain in chains for n in range(3)]
    graph = chain_graph(3)
    return split(rows, Factored(graph, [chain_factors(row.question.split(), 3) for row in rows]), 0, 60)


@pytest.fixture(scope="module")
def split_json(made: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    write(made, folder, {})
    return folder / ABOUT


def report(made: Split, split_json: Path, make: Make, right: Callable[[int, str], str]) -> CompositionReport:
    trials = [make(each.problem.id, right(row, each.kind)) for row, each in enumerate(made.test)]
    return composition_report(trials, split_json, draws=4000)


def test_accuracies_and_gaps_are_those_of_the_classes(made: Split, split_json: Path, make_trial: Make) -> None:
    generator = np.random.default_rng(1)
    chance = {"iid": 0.9, "composable": 0.8, "blocked": 0.3}
    outcomes = ["correct" if generator.random() < chance[each.kind] else "wrong" for each in made.test]
    found = report(made, split_json, make_trial, lambda row, kind: outcomes[row])

    # By hand: means over problems, and a bootstrap of combinations within each class.
    values: dict[str, dict[str, list[float]]] = {kind: {} for kind in chance}
    for each, outcome in zip(made.test, outcomes, strict=True):
        values[each.kind].setdefault(each.combo, []).append(float(outcome == "correct"))
    means = {kind: np.mean([v for each in combos.values() for v in each]) for kind, combos in values.items()}
    for kind, accuracy in found.accuracy.items():
        assert accuracy.value == pytest.approx(means[kind])
        assert accuracy.clusters == len(values[kind]) == made.combos()[kind]

    def drawn(kind: str) -> np.ndarray:
        groups = list(values[kind].values())
        sums, sizes = np.array([sum(g) for g in groups]), np.array([len(g) for g in groups])
        index = generator.integers(0, len(groups), (4000, len(groups)))
        totals: np.ndarray = sums[index].sum(1) / sizes[index].sum(1)
        return totals

    for name, (a, b) in {
        "iid - composable": ("iid", "composable"),
        "composable - blocked": ("composable", "blocked"),
    }.items():
        gap = found.gaps[name]
        low, high = np.quantile(drawn(a) - drawn(b), [0.025, 0.975])
        assert gap.value == pytest.approx(means[a] - means[b])
        assert (gap.low, gap.high) == pytest.approx((low, high), abs=0.03)
        assert gap.clusters == made.combos()[a] + made.combos()[b]


def test_problems_of_a_combination_count_as_one_draw(made: Split, split_json: Path, make_trial: Make) -> None:
    # All problems of a combination right or all wrong: the interval is that of as many combinations.
    combos = {each.combo: number % 2 for number, each in enumerate({e.combo: e for e in made.test}.values())}
    outcomes = ["correct" if combos[each.combo] else "wrong" for each in made.test]
    found = report(made, split_json, make_trial, lambda row, kind: outcomes[row]).accuracy["composable"]
    assert found.low is not None and found.high is not None
    number = made.combos()["composable"]
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(number), rel=0.15)


def test_what_blocks_is_broken_down(made: Split, split_json: Path, make_trial: Make) -> None:
    found = report(made, split_json, make_trial, lambda row, kind: "wrong" if kind == "blocked" else "correct")
    sizes = {name: each.n for name, each in found.by_modules.items()}
    assert sum(sizes.values()) == sum(each.kind == "blocked" for each in made.test)
    assert set(sizes) <= {"pair1", "pair2", "pair1, pair2"}
    # All right against all wrong: no draw differs, and yet a gap of exactly 1 is not certain.
    gap = found.gaps["composable - blocked"]
    assert gap.value == gap.high == 1.0 and gap.low is not None and 0.8 < gap.low < 1.0


def test_the_text_is_with_respect_to_the_graph(made: Split, split_json: Path, make_trial: Make) -> None:
    text = report(made, split_json, make_trial, lambda row, kind: "correct").text()
    assert "with respect to this module graph" in text and "pair1 reads op1 and op2" in text
    assert "identifiab" not in text and "extension" not in text
    about = json.loads(split_json.read_text(encoding="utf-8"))
    assert "identifiab" not in json.dumps(about)


def test_tied_modules_are_named(made: Split, tmp_path: Path, make_trial: Make) -> None:
    graph = chain_graph(3, tie=True)
    tied = Split(graph, 0, made.n_train, False, made.train, made.test, {})
    write(tied, tmp_path, {})
    text = report(made, tmp_path / ABOUT, make_trial, lambda row, kind: "correct").text()
    assert "an extension of the split" in text and "pair1, pair2 are one module (supports pooled)" in text


def test_ungraded_and_missing_trials_are_counted_and_are_not_0(made: Split, split_json: Path, make_trial: Make) -> None:
    trials = [make_trial(each.problem.id, "ungraded" if not row else "correct") for row, each in enumerate(made.test)]
    found = composition_report(trials[:-3], split_json, draws=200)
    assert (found.ungraded, found.missing) == (1, 3)
    assert found.accuracy[made.test[0].kind].value == 1.0
    assert found.warnings == (
        f"3 of {len(made.test)} test problems have no trial", f"1 of {len(trials) - 3} trials could not be graded",
    )  # fmt: skip


def test_several_samples_of_a_problem_are_averaged(made: Split, split_json: Path, make_trial: Make) -> None:
    trials = [
        make_trial(e.problem.id, out, n) for e in made.test for n, out in enumerate(["correct", "wrong", "wrong"])
    ]
    found = composition_report(trials, split_json, draws=200)
    assert all(each.value == pytest.approx(1 / 3) for each in found.accuracy.values())
    assert found.accuracy["iid"].n == sum(each.kind == "iid" for each in made.test)


def test_a_cover_has_no_blocked_class_and_says_why(tmp_path: Path, make_trial: Make) -> None:
    signs = "pqrstu"
    rows = [Problem(f"{a} {b} {c} {n}", f"{a} {b} {c}", "1") for a in signs for b in signs for c in signs for n in "12"]
    covering = split(rows, Factored(chain_graph(3), [chain_factors(r.question.split(), 3) for r in rows]), 0)
    write(covering, tmp_path, {})
    found = composition_report(
        [make_trial(e.problem.id, "correct") for e in covering.test], tmp_path / ABOUT, draws=200
    )
    for estimate in (found.accuracy["blocked"], found.gaps["composable - blocked"]):
        assert estimate.value is None and "chosen to cover all modules" in (estimate.reason or "")
    assert "none (" in found.text()


def test_trials_that_are_not_the_splits_are_refused(made: Split, split_json: Path, make_trial: Make) -> None:
    right = [make_trial(each.problem.id, "correct") for each in made.test]
    with pytest.raises(TrialError, match="no test problem `elsewhere`"):
        composition_report([*right, make_trial("elsewhere", "correct")], split_json)
    with pytest.raises(TrialError, match="one checkpoint's trials, not of"):
        composition_report([*right, make_trial(made.test[0].problem.id, "correct", 1, label="other")], split_json)
    with pytest.raises(TrialError, match="not of none"):
        composition_report([], split_json)
    with pytest.raises(TaskError, match=r"no split\.json of a composable split"):
        composition_report(right, split_json.parent / "train.jsonl")


def test_answers_to_another_suite_with_the_same_ids_are_refused(
    made: Split, split_json: Path, make_trial: Make
) -> None:
    first = made.test[0].problem
    asked = {"role": "user", "content": f"{first.question}\n\nEnd with the answer."}
    other = {"role": "user", "content": "2 + 2 ="}
    composition_report([make_trial(first.id, "wrong").model_copy(update={"prompt": (asked,)})], split_json, draws=100)
    with pytest.raises(TrialError, match=f"`{first.id}` was asked with another question than the split has"):
        composition_report([make_trial(first.id, "wrong").model_copy(update={"prompt": (other,)})], split_json)


def test_rows_in_place_of_the_split(split_json: Path) -> None:
    rows = split_json.with_name("test.jsonl")
    with pytest.raises(TaskError, match=r"no split\.json of a composable split, with its test\.jsonl beside it; `triv"):
        composition_report([], rows)
