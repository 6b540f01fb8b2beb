"""Comparisons with several trials of each problem, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from eval.compare import NOTHING_SOLVED, Comparison, Evaluated, across_seeds, adjust, compare, verdict
from eval.power import power_of
from eval.suite import CompareError
from eval.trial import Trial
from pipelines.eval_command import unmet
from pipelines.evaluation import Stored

Make = Callable[..., list[Trial]]
SETTINGS: Mapping[str, Any] = {"name": "s", "data": {"shots": 0, "problems": 40}, "prompt": {"system": None}}


def side(label: str, trials: Sequence[Trial], settings: Mapping[str, Any] = SETTINGS) -> Evaluated:
    return Evaluated(label, settings, trials)


def test_flips_are_problems_from_right_to_wrong_and_back(make_trials: Make) -> None:
    a = side("update", make_trials([["correct"]] * 30 + [["wrong"]] * 10))
    b = side("tune", make_trials([["wrong"]] * 5 + [["correct"]] * 27 + [["unparsed"]] * 8))
    found = compare(a, b, draws=4000)
    assert found.gained == tuple(f"p{row}" for row in range(5))
    assert found.lost == ("p30", "p31")
    assert found.shares == (30 / 40, 27 / 40)
    assert (len(found.gained) / 40, len(found.lost) / 40) == (found.difference.better, found.difference.worse)
    assert found.difference.estimate.value == pytest.approx(3 / 40)
    back = compare(b, a, draws=4000)
    assert (back.gained, back.lost) == (found.lost, found.gained)
    # One trial each and independent problems: flips of signs are McNemar's exact test.
    assert found.difference.p == pytest.approx(binomtest(2, 7).pvalue, abs=0.02)


def test_several_trials_are_averaged_per_problem(make_trials: Make) -> None:
    a = side("update", make_trials([["correct", "wrong", "correct", "correct"]] * 20 + [["wrong"] * 4] * 20))
    b = side("tune", make_trials([["correct", "wrong", "wrong", "correct"]] * 20 + [["wrong"] * 3 + ["correct"]] * 20))
    found = compare(a, b, draws=1000)
    assert found.difference.estimate.value == pytest.approx((20 * 0.25 - 20 * 0.25) / 40)
    assert (found.difference.estimate.n, found.difference.estimate.clusters) == (40, 40)
    assert found.gained == tuple(f"p{row}" for row in range(20))
    assert found.lost == tuple(f"p{row}" for row in range(20, 40))


def test_repeating_trials_makes_no_interval_narrower(make_trials: Make) -> None:
    a, b = [["correct"]] * 26 + [["wrong"]] * 14, [["correct"]] * 20 + [["wrong"]] * 20
    once = compare(side("a", make_trials(a)), side("b", make_trials(b)), draws=1000)
    again = compare(
        side("a", make_trials([each * 16 for each in a])), side("b", make_trials([each * 16 for each in b])), draws=1000
    )
    assert once == again


def test_a_problem_with_some_ungraded_trials_stays(make_trials: Make) -> None:
    a = side("a", make_trials([["correct", "ungraded"]] * 20))
    b = side("b", make_trials([["correct", "wrong"]] * 19 + [["ungraded", "ungraded"]]))
    found = compare(a, b, draws=500)
    assert (found.left_out, found.difference.estimate.n) == (1, 19)
    assert found.difference.estimate.value == 0.5


def test_a_third_that_could_not_be_graded_gives_no_difference_and_meets_no_requirement(make_trials: Make) -> None:
    """All of them problems that the other side has right: over the rest there would be 100 points between the two."""
    a = side("a", make_trials([["correct"]] * 20 + [["ungraded"]] * 10))
    b = side("b", make_trials([["wrong"]] * 20 + [["correct"]] * 10))
    found = compare(a, b, draws=500)
    reason = "only 20 of 30 problems could be graded on both sides"
    assert (found.difference.estimate.value, found.difference.p, found.shares) == (None, None, (None, None))
    assert found.difference.estimate.reason == reason and found.left_out == 10
    assert verdict(found, seeds=3) == f"no interval: {reason}"
    result = {"suite": {"name": "s"}, "checkpoints": [{"label": "a"}], "comparisons": [asdict(found)]}
    for requirement in ("better", "not-worse"):
        assert unmet([Stored("s", Path(), result)], ["s"], requirement) == [f"s ({reason})"]


def test_arms_with_too_many_ungraded_answers_have_no_numbers(make_trials: Make) -> None:
    lost = [side(f"ours/{seed}", make_trials([["correct"]] * 36 + [["ungraded"]] * (2 * seed))) for seed in (2, 2)]
    base = [side(f"base/{seed}", make_trials([["wrong"]] * 40)) for seed in (2, 2)]
    control, arm = across_seeds({"base": base, "ours": lost}, "base", draws=100)
    assert control.accuracy.value is None and control.per_seed == (None, None)
    assert arm.accuracy.reason == "only 36 of 40 problems could be graded for every arm and seed"
    assert arm.per_seed_difference == (None, None) and arm.verdict.startswith("no interval: only 36 of 40")


def test_another_number_of_shots_is_refused_by_name(make_trials: Make) -> None:
    """lm-eval#1262: a 0-shot score was held against a 1-shot score."""
    trials = make_trials([["correct"]] * 20)
    other = copy.deepcopy(dict(SETTINGS))
    other["data"]["shots"] = 1
    with pytest.raises(CompareError, match=r"`a` and `b` were evaluated differently: data\.shots differ"):
        compare(side("a", trials), side("b", trials, other))


def test_a_refusal_names_the_problems_of_each_side(make_trials: Make) -> None:
    trials = make_trials([["correct", "wrong"]] * 20)
    left, right = trials[:-4], trials[10:]
    with pytest.raises(CompareError) as refused:
        compare(side("a", left), side("b", right))
    assert str(refused.value) == (
        "`a` and `b` have different problems: 5 only in `a` (p0, p1, p2, …), 2 only in `b` (p18, p19); "
        "evaluate both on the same data"
    )
    with pytest.raises(CompareError, match=r"problems: 1 only in `a` \(p19\); evaluate"):
        compare(side("a", trials), side("b", trials[:-2]))


def test_a_trial_that_occurs_twice_is_refused(make_trials: Make) -> None:
    trials = make_trials([["correct", "wrong"]] * 20)
    with pytest.raises(CompareError, match="`b`: there are two trials for problem `p0`, sample 1"):
        compare(side("a", trials), side("b", [*trials, trials[1]]))


def test_other_clusters_are_refused(make_trials: Make) -> None:
    a, b = make_trials([["correct"]] * 20), make_trials([["correct"]] * 20, cluster="one")
    with pytest.raises(CompareError, match="problem `p0` is in other clusters in `a` and `b`"):
        compare(side("a", a), side("b", b))


def test_two_that_solve_nothing_show_nothing(make_trials: Make) -> None:
    nothing, little = (
        make_trials([["wrong", "unparsed"]] * 40),
        make_trials([["wrong", "correct"]] + [["wrong"] * 2] * 39),
    )
    both = compare(side("a", nothing), side("b", nothing), draws=100)
    assert verdict(both, seeds=3) == NOTHING_SOLVED
    for a, b in ((nothing, little), (little, nothing), (little, little)):
        assert verdict(compare(side("a", a), side("b", b), draws=100), seeds=1).startswith("no difference shown")


def test_where_few_clusters_differ_the_normal_theory_says_nothing(make_trials: Make) -> None:
    """Five that flip one way have p 1/16, whatever the error of their mean says."""
    worse, better = make_trials([["wrong"]] * 5 + [["correct"]]), make_trials([["correct"]] * 6)
    found = compare(side("a", better), side("b", worse))
    assert found.difference.p is not None and found.difference.p > 0.05
    assert found.difference.detectable is None and verdict(found, seeds=3).endswith("too few clusters differ")
    assert power_of(found.difference).line == "What 6 problems can show is not known: too few of the 6 clusters differ."


def test_one_family_of_several_suites(make_trials: Make) -> None:
    def pair(suite: str, right: int) -> Comparison:
        a = make_trials([["correct"]] * right + [["wrong"]] * (60 - right), suite=suite)
        b = make_trials([["correct"]] * 30 + [["wrong"]] * 30, suite=suite)
        return compare(side("a", a), side("b", b), draws=2000)

    family = [pair("one", 34), pair("two", 37), pair("three", 50)]
    adjusted = adjust(family)
    expected = multipletests([each.difference.p for each in family], method="holm")[1]
    assert [each.p_holm for each in adjusted] == pytest.approx(expected.tolist())
    assert adjusted[1].p_holm > family[1].difference.p  # type: ignore[operator]


def test_seeds_with_several_trials(make_trials: Make) -> None:
    """Means of trials, then of seeds, then clusters are drawn."""
    half, both = ["correct", "wrong"], ["correct", "correct"]
    ours = [side(f"ours/{seed}", make_trials([both] * (20 + seed) + [half] * (20 - seed))) for seed in range(3)]
    base = [side(f"base/{seed}", make_trials([half] * 40)) for seed in range(3)]
    control, arm = across_seeds({"base": base, "ours": ours}, "base", draws=1000)
    assert control.per_seed == (0.5, 0.5, 0.5)
    assert arm.per_seed_difference == pytest.approx((10 / 40, 10.5 / 40, 11 / 40))
    assert arm.comparison is not None
    assert arm.comparison.gained == tuple(f"p{row}" for row in range(22)) and arm.comparison.lost == ()
    assert arm.verdict == "improved on base, 3 seeds"
