"""Numbers that a benchmark is reported by, against scikit-learn and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from eval.protocol import Measure, Protocol, measures
from eval.trial import Extract, Rewards, Trial

YES_NO = Protocol(yes_no=True)
POINTS = Protocol(points={"perception": ("count", "color")})


def trial(problem: str, gold: str, said: str | None, *, kind: str = "", cluster: str = "", **more: Any) -> Trial:
    right = said == gold
    return Trial(
        label="m", suite="s", suite_digest="0", problem_id=problem, cluster=cluster or problem, seed=0, prompt_sha="0",
        gold=gold, completion=said or "maybe", finish="stop", extract=Extract(strict=said), reward=Rewards(),
        outcome="unparsed" if said is None else "correct" if right else "wrong", factors={"kind": kind},
        **{"sample": 0, **more},
    )  # fmt: skip


def values(found: list[Measure]) -> dict[str, float | None]:
    return {each.name: each.estimate.value for each in found}


def test_f1_is_the_mean_of_what_scikit_learn_finds_in_each_kind() -> None:
    generator = np.random.default_rng(0)
    kinds = ["random", "popular", "adversarial"]
    trials, gold, said = [], {kind: [] for kind in kinds}, {kind: [] for kind in kinds}
    for kind, leaning in zip(kinds, (0.2, 0.5, 0.9), strict=True):
        for number in range(90):
            true = generator.choice(["yes", "no"])
            answer = generator.choice(["yes", "no"], p=[leaning, 1 - leaning])
            gold[kind].append(true), said[kind].append(answer)
            trials.append(trial(f"{kind}-{number}", true, answer, kind=kind, cluster=f"image-{number // 6}"))
    expected = np.mean(
        [precision_recall_fscore_support(gold[k], said[k], pos_label="yes", average="binary")[:3] for k in kinds], 0
    )
    found = measures(trials, YES_NO)
    assert [values(found)[name] for name in ("precision", "recall", "F1")] == pytest.approx(list(expected))
    assert values(found)["yes"] == pytest.approx(np.mean([np.mean(np.array(said[k]) == "yes") for k in kinds]))
    f1 = found[0].estimate
    assert f1.clusters == 15 and f1.low is not None and f1.high is not None and f1.low < expected[2] < f1.high


def test_an_answer_that_is_neither_yes_nor_no_is_no_yes() -> None:
    """It costs recall and no precision; POPE's own script would take it for a yes."""
    trials = [trial("a", "yes", "Yes."), trial("b", "yes", None), trial("c", "no", None), trial("d", "no", "no")]
    assert values(measures(trials, YES_NO)) == pytest.approx({"F1": 2 / 3, "precision": 1, "recall": 0.5, "yes": 0.25})


def test_a_ratio_without_a_denominator_has_a_reason() -> None:
    found = {each.name: each.estimate for each in measures([trial("a", "yes", "no"), trial("b", "no", "no")], YES_NO)}
    assert found["precision"].value is None and found["precision"].reason == "yes was never said to a kind"
    assert found["recall"].value == found["F1"].value == 0


def test_a_number_that_is_the_same_of_every_image_has_an_exact_interval() -> None:
    """`no` to every question: 10 images have a yes that was missed, 20 an answer at all."""
    gold = ("yes", "no")
    trials = [trial(f"p{row}", gold[row % 2], "no", cluster=f"c{row}") for row in range(20)]
    found = {each.name: each.estimate for each in measures(trials, YES_NO)}
    for name, images in (("recall", 10), ("F1", 10), ("yes", 20)):
        exact = binomtest(0, images).proportion_ci(0.95, method="exact")
        assert (found[name].value, found[name].low) == (0, 0) and found[name].high == pytest.approx(exact.high)
    wrong = [trial(f"p{row}", "yes", "no", kind="count", cluster=f"c{row // 2}") for row in range(10)]
    (points,) = measures(wrong, Protocol(points={"p": ("count",)}))
    assert points.estimate.high == pytest.approx(binomtest(0, 5).proportion_ci(0.95, method="exact").high)


def test_points_are_accuracy_and_whole_pairs_of_each_kind() -> None:
    def pair(name: str, kind: str, first: bool, second: bool) -> list[Trial]:
        said = {True: "yes", False: "no"}
        both = ((f"{name}-{number}", said[right]) for number, right in enumerate((first, second)))
        return [trial(problem, "yes", answer, kind=kind, cluster=name) for problem, answer in both]

    trials = [
        *pair("a", "count", True, True), *pair("b", "count", True, False), *pair("c", "count", True, True),
        *pair("d", "color", False, False), *pair("e", "color", True, False),
        *pair("f", "posters", False, False),
    ]  # fmt: skip
    (found,) = measures(trials, POINTS)
    # count: 5 of 6 and 2 of 3 pairs; color: 1 of 4 and 0 of 2 pairs; posters are in no group.
    assert found.full == 400
    assert found.full * (found.estimate.value or 0) == pytest.approx(100 * (5 / 6 + 2 / 3 + 1 / 4 + 0))


def test_each_sample_is_a_pass_of_its_own() -> None:
    """Two samples that each have one question of the pair right make no whole pair."""
    trials = [
        trial(f"a-{question}", "yes", "yes" if question == sample else "no", kind="count", cluster="a", sample=sample)
        for question in (0, 1)
        for sample in (0, 1)
    ]
    (found,) = measures(trials, Protocol(points={"p": ("count",)}))
    assert found.full * (found.estimate.value or 0) == pytest.approx(50)


def test_points_of_kinds_that_were_not_asked_are_unknown() -> None:
    (found,) = measures([trial("a", "yes", "yes", kind="count")], POINTS)
    assert found.estimate.value is None and found.estimate.reason == "not asked: color"


def lost(problem: str, **more: Any) -> Trial:
    return trial(problem, "yes", "no", **more).model_copy(update={"outcome": "ungraded", "reason": "timeout"})


def test_ungraded_trials_are_in_no_number() -> None:
    found = measures([*(trial(f"p{row}", "yes", "yes") for row in range(19)), lost("x")], YES_NO)
    assert values(found)["recall"] == 1 and found[0].estimate.warning.startswith("over 19 of 20 problems")  # type: ignore[union-attr]


@pytest.mark.parametrize("protocol", [YES_NO, Protocol(points={"p": ("count", "color")})])
def test_a_kind_with_too_many_ungraded_trials_has_no_number(protocol: Protocol) -> None:
    """3 of 100 problems, but of the 20 of one kind, which weighs as much as the other."""
    graded = [trial(f"p{row}", "yes", "yes", kind="color" if row < 17 else "count") for row in range(97)]
    (*_, found) = measures([*graded, *(lost(f"x{row}", kind="color") for row in range(3))], protocol)
    assert found.estimate.value is None
    assert found.estimate.reason == "only 17 of 20 problems of color have a graded trial"


def test_a_pair_with_an_ungraded_answer_is_not_right_throughout() -> None:
    pairs = [
        trial(f"{row}-{each}", "yes", "yes", kind="count", cluster=f"c{row}") for row in range(10) for each in "ab"
    ]
    pairs[0] = trial("0-a", "yes", "no", kind="count", cluster="c0")
    pairs[2] = lost("1-a", kind="count", cluster="c1")
    (found,) = measures(pairs, Protocol(points={"p": ("count",)}))
    assert found.full * (found.estimate.value or 0) == pytest.approx(100 * (18 / 19 + 8 / 9))
