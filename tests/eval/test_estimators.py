"""pass@k and its kin, against closed forms, every subset, the binomial, and simulation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import combinations, permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.estimators import (
    consistency,
    maj_at_k,
    metrics_at,
    over_problems,
    pass_at_k,
    pass_hat_k,
)
from eval.tally import Tally, Vote, group_of, tally
from eval.trial import Trial

SMALL = [(n, c, k) for n in range(1, 9) for c in range(n + 1) for k in range(1, n + 1)]


def counted(n: int, passes: int, problem: str = "p") -> Tally:
    return Tally(problem, problem, n, passes, (Vote(passes, passes),) if passes else ())


def answered(answers: Sequence[object], gold: object, problem: str = "p") -> Tally:
    """The tally of these answers; None is an answer that could not be parsed."""
    votes = Counter(answer for answer in answers if answer is not None)
    return Tally(
        problem,
        problem,
        len(answers),
        sum(answer == gold for answer in answers),
        tuple(Vote(number, number if answer == gold else 0) for answer, number in votes.items()),
    )


def majority_by_hand(answers: Sequence[object], gold: object, k: int) -> Fraction:
    """Every subset of k, one by one."""
    credits = []
    for subset in combinations(answers, k):
        votes = Counter(answer for answer in subset if answer is not None)
        tied = [answer for answer, number in votes.items() if number == max(votes.values())]
        credits.append(Fraction(sum(answer == gold for answer in tied), len(tied)) if tied else Fraction(0))
    return sum(credits, Fraction(0)) / len(credits)


@pytest.mark.parametrize(
    ("metric", "n", "c", "k", "expected"),
    [
        # prime-rl's own test of its metrics has the first two.
        (pass_at_k, 4, 2, 2, Fraction(5, 6)),
        (pass_hat_k, 4, 2, 2, Fraction(1, 6)),
        (pass_at_k, 10, 3, 5, Fraction(11, 12)),
        (pass_hat_k, 5, 4, 3, Fraction(2, 5)),
        (pass_hat_k, 16, 12, 8, Fraction(1, 26)),
        (pass_at_k, 200, 1, 100, Fraction(1, 2)),
    ],
)
def test_known_values(metric: Callable[[Tally, int], Fraction], n: int, c: int, k: int, expected: Fraction) -> None:
    assert metric(counted(n, c), k) == expected


@pytest.mark.parametrize(("n", "c", "k"), SMALL)
def test_every_subset_says_the_same(n: int, c: int, k: int) -> None:
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(counted(n, c), k) == Fraction(sum(map(any, subsets)), len(subsets))
    assert pass_hat_k(counted(n, c), k) == Fraction(sum(map(all, subsets)), len(subsets))


@pytest.mark.parametrize(("n", "c", "k"), SMALL)
def test_identities(n: int, c: int, k: int) -> None:
    problem = counted(n, c)
    any_passes, all_pass = pass_at_k(problem, k), pass_hat_k(problem, k)
    assert any_passes is not None and all_pass is not None
    assert any_passes == 1 - pass_hat_k(counted(n, n - c), k)  # type: ignore[operator]
    if k == 1:
        assert any_passes == all_pass == maj_at_k(problem, 1) == Fraction(c, n)
    if k == n:
        assert (any_passes, all_pass) == (c > 0, c == n)
    if c == 1:
        assert any_passes == Fraction(k, n)
    if k > 1:
        assert any_passes >= pass_at_k(problem, k - 1)  # type: ignore[operator]
        assert all_pass <= pass_hat_k(problem, k - 1)  # type: ignore[operator]


@pytest.mark.parametrize("k", range(1, 7))
def test_unbiased_under_the_binomial(k: int) -> None:
    n, p = 6, Fraction(3, 10)
    chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert sum(w * pass_hat_k(counted(n, c), k) for c, w in enumerate(chance)) == p**k  # type: ignore[operator]
    assert sum(w * pass_at_k(counted(n, c), k) for c, w in enumerate(chance)) == 1 - (1 - p) ** k  # type: ignore[operator]


def test_pass_at_k_is_the_product_that_the_paper_computes() -> None:
    for n, c, k in ((200, 7, 100), (16, 5, 8), (50, 1, 3)):
        product = 1 - np.prod(1 - k / np.arange(n - c + 1, n + 1))
        assert float(pass_at_k(counted(n, c), k) or 0) == pytest.approx(product, rel=1e-12)


def test_too_few_trials_are_unknown_and_neither_0_nor_1() -> None:
    # openai/human-eval PR#68: n = 2, c = 0, k = 5 came out as 1.
    assert [metric(counted(2, 0), 5) for metric in (pass_at_k, pass_hat_k, maj_at_k)] == [None] * 3
    # Four trials of which two could not be graded, k = 3.
    assert (pass_at_k(counted(2, 1), 3), pass_hat_k(counted(2, 1), 3)) == (None, None)
    found = metrics_at([counted(2, 0, f"p{row}") for row in range(30)], 5)
    assert {each.value for each in found.values()} == {None}
    assert {each.reason for each in found.values()} == {"only 0 of 30 problems have 5 graded trials"}


def test_k_is_1_or_more() -> None:
    for metric in (pass_at_k, pass_hat_k, maj_at_k):
        with pytest.raises(ValueError, match="k is 1 or more, not 0"):
            metric(counted(4, 2), 0)


def test_totals_of_a_suite_are_not_one_problem() -> None:
    """paiml/aprender PR#2118: 50 of 164 solved, one trial each; taken for n = 164 and c = 50, pass@10 "is" 97.7 %."""
    problems = [counted(1, int(row < 50), f"p{row}") for row in range(164)]
    assert metrics_at(problems, 1)["pass@1"].value == pytest.approx(0.3049, abs=5e-5)
    assert metrics_at(problems, 10)["pass@10"].value is None
    assert float(pass_at_k(counted(164, 50), 10) or 0) == pytest.approx(0.977, abs=5e-4)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((7, 7, 3, 4, 3), ("2/5", "2/5", "13/30", "1/2", "1/2")),
        ((7, None, None, 3), ("1/4", "5/12", "1/2", "1/2")),
    ],
)
def test_majority_of_known_answers(answers: Sequence[int | None], expected: Sequence[str]) -> None:
    orders = set(permutations(answers))
    assert len(orders) > 5
    for order in orders:
        found = [maj_at_k(answered(order, 7), k) for k in range(1, len(answers) + 1)]
        assert found == [Fraction(each) for each in expected]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from([7, 3, 4, 5, None]), min_size=1, max_size=9), st.data())
def test_majority_is_that_of_every_subset(answers: list[int | None], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(answers)))
    assert maj_at_k(answered(answers, 7), k) == majority_by_hand(answers, 7, k)
    if k == 1 or (k == 2 and None not in answers):
        assert maj_at_k(answered(answers, 7), k) == pass_at_k(answered(answers, 7), 1)


def test_two_right_answers_share_their_credit() -> None:
    # Both expressions for 24 are right; they tie with a wrong one.
    problem = Tally("p", "p", 3, 2, (Vote(1, 1), Vote(1, 1), Vote(1, 0)))
    assert maj_at_k(problem, 3) == Fraction(2, 3)


def test_an_answer_graded_both_ways_is_right_in_that_share() -> None:
    # A judge called one of four equal answers wrong.
    problem = Tally("p", "p", 5, 3, (Vote(4, 3), Vote(1, 0)))
    assert maj_at_k(problem, 1) == Fraction(3, 5)
    assert maj_at_k(problem, 5) == Fraction(3, 4)


def test_no_vote_at_all_is_0_and_many_samples_are_exact() -> None:
    assert maj_at_k(Tally("p", "p", 4, 0, ()), 3) == 0
    # 32 of 64: two answers, half the trials each, tie or win alike.
    assert maj_at_k(Tally("p", "p", 64, 32, (Vote(32, 32), Vote(32, 0))), 32) == Fraction(1, 2)


def test_a_tally_without_votes_has_no_majority() -> None:
    with pytest.raises(ValueError, match="problem `p`: its answers were not put into groups"):
        maj_at_k(Tally("p", "p", 4, 2), 2)


@pytest.mark.parametrize(("n", "passes", "votes"), [(2, 3, None), (2, -1, None), (2, 1, (Vote(3, 1),))])
def test_impossible_counts_are_refused(n: int, passes: int, votes: tuple[Vote, ...] | None) -> None:
    with pytest.raises(ValueError, match="problem `p`"):
        Tally("p", "p", n, passes, votes)


def test_consistency() -> None:
    always_or_never = [counted(8, 8 * (row < 2), f"p{row}") for row in range(4)]
    assert consistency(always_or_never, 3).value == 4.0  # The ceiling, (1/2)^(1 − 3).
    assert consistency(always_or_never, 2).value == 2.0
    alike = [counted(20_000, 10_000, f"p{row}") for row in range(4)]
    assert consistency(alike, 3).value == pytest.approx(1, abs=2e-4)
    nothing = consistency([counted(8, 0, f"p{row}") for row in range(4)], 3)
    assert (nothing.value, nothing.low, nothing.reason) == (None, None, "pass@1 is 0")


def test_consistency_interval_draws_both_means_together() -> None:
    # Brute force over all 3³ draws of three clusters: one problem each.
    problems = [counted(4, passes, f"p{passes}") for passes in (1, 2, 4)]
    drawn = sorted(
        (sum(math.comb(c, 2) for c in draw) / 6 / 3) / (sum(draw) / 4 / 3) ** 2
        for draw in ([a, b, c] for a in (1, 2, 4) for b in (1, 2, 4) for c in (1, 2, 4))
    )
    found = consistency(problems, 2)
    assert (found.low, found.high) == pytest.approx((drawn[0], drawn[-1]))


def test_consistency_has_no_interval_where_many_draws_have_no_ratio() -> None:
    rare = consistency([counted(2, 2 * (row < 2), f"p{row}") for row in range(30)], 2)
    assert rare.value == pytest.approx(15)
    # (28/30)^30 = 12.6 % of the draws hold no solved problem.
    assert rare.low is None and rare.reason is not None
    assert float(rare.reason.split(" in ")[1].split("%")[0]) == pytest.approx(12.6, abs=1)


def test_a_suite_is_the_mean_over_its_problems() -> None:
    """Not over trials: a problem with more of them counts once."""
    problems = [counted(8, 8, "p0"), counted(2, 0, "p1"), counted(4, 2, "p2")]
    found = metrics_at(problems, 2)
    assert found["pass@2"].value == pytest.approx(float((1 + 0 + Fraction(5, 6)) / 3))
    assert found["pass^2"].value == pytest.approx(float((1 + 0 + Fraction(1, 6)) / 3))
    assert set(found) == {"pass@2", "pass^2", "maj@2", "consistency@2"}
    assert set(metrics_at(problems, 1)) == {"pass@1"}


def test_m_of_m_problems() -> None:
    known = [counted(4, 2, f"p{row}") for row in range(38)]
    short = [counted(3, 0, f"q{row}") for row in range(2)]
    found = metrics_at([*known, *short], 4)
    assert found["pass@4"].value == 1.0 and found["pass@4"].n == 38
    assert all("over 38 of 40 problems" in str(each.warning) for each in found.values())
    third = [counted(3, 0, "q3")]
    for each in metrics_at([*known, *short, *third], 4).values():
        assert (each.value, each.reason) == (None, "only 38 of 41 problems have 4 graded trials")


def test_all_unknown_and_none_at_all() -> None:
    assert over_problems([None, None], ["a", "b"], "problems").reason == "only 0 of 2 problems"
    assert over_problems([], [], "problems").reason == "no graded problem"
    assert consistency([], 2).reason == "no graded problem"


def test_coverage_with_several_trials_of_problems_in_clusters() -> None:
    """Images with 3 problems of 4 trials: the cluster interval covers, trials or problems taken alone do not.

    With 2,500 worlds of another seed the two intervals cover in 94.4 and 94.0 %.
    """
    worlds, images, each, samples = 600, 60, 3, 4
    generator = np.random.default_rng(0)
    ability = generator.beta(1.5, 1.5, (worlds, images, 1))  # Of an image: the same for its problems.
    passes = generator.binomial(samples, np.repeat(ability, each, 2)).reshape(worlds, -1)
    table = {c: counted(samples, c) for c in range(samples + 1)}
    names = np.repeat([f"image{row}" for row in range(images)], each).tolist()
    # E[p] = 1/2 and E[p²] = 5/16 under Beta(3/2, 3/2).
    for metric, truth in ((pass_at_k, 11 / 16), (pass_hat_k, 5 / 16)):
        value_of = np.array([float(metric(table[c], 2) or 0) for c in range(samples + 1)])
        values = value_of[passes]
        covered = 0
        for row in values:
            interval = over_problems(row.tolist(), names, "problems", draws=1000)
            assert interval.low is not None and interval.high is not None
            covered += interval.low <= truth <= interval.high
        assert 0.93 <= covered / worlds <= 0.97
        error = values.std(1, ddof=1) / math.sqrt(values.shape[1])
        assert (abs(values.mean(1) - truth) <= 1.96 * error).mean() < 0.9  # Problems as if independent.
    share = passes.mean(1) / samples
    error = np.sqrt(share * (1 - share) / (passes.shape[1] * samples))
    assert (abs(share - 1 / 2) <= 1.96 * error).mean() < 0.75  # Trials as if independent.


def test_answers_are_votes_for_one_another_by_their_reward_s_equality() -> None:
    def keys(reward: str, *answers: str) -> set[Any]:
        group = group_of(reward)
        said: list[Any] = [SimpleNamespace(answer=each, outcome="wrong") for each in answers]
        return {group(each) for each in said}

    assert len(keys("number", "18", "$18.00", "18.0", "1/2")) == 2
    assert len(keys("countdown", "3+4*5", "3 + 4 * 5", "3*4+5")) == 2
    assert len(keys("maths", "x-1", "x+1", "(1,2)", "12")) == 4
    assert len(keys("maths", "1/2", r"\frac{1}{2}", r"\dfrac12", "0.5", "$1/2$")) == 1
    assert len(keys("maths", r"-\frac{1}{4}", "-0.25", "-1/4", "1/0", "0.25")) == 3
    assert len(keys("exact_match", "A red cat.", "red cat")) == 1
    assert len(keys("choice", "The cat", "cat.", "b")) == 2
    assert len(keys("choice_or_value", "$1,000", "1000.0", "Red.", "red")) == 2


@pytest.mark.parametrize(
    ("reward", "right", "wrong"),
    [
        ("maths", ["0.5", "1/2", r"\frac{1}{2}", "x^2+x", "x(x+1)"], ["7", "7", "7"]),
        ("choice", ["A", "the first", "(a)", "A."], ["B", "B"]),
        ("grid", ["1 2\n3 4", "12\n34", "[[1,2],[3,4]]"], ["1 1\n1 1"]),
    ],
)
def test_right_answers_are_one_vote_where_the_reward_has_one(
    make_trial: Callable[..., Trial], reward: str, right: list[str], wrong: list[str]
) -> None:
    """However they are written. Of a puzzle with several solutions each solution is a vote of its own."""
    said = [("correct", each) for each in right] + [("wrong", each) for each in wrong]
    trials = [make_trial("p", outcome, sample, answer=answer) for sample, (outcome, answer) in enumerate(said)]
    assert maj_at_k(tally(trials, group_of(reward)), len(trials)) == 1
    assert set(tally(trials, group_of(reward)).votes or ()) == {Vote(len(right), len(right)), Vote(len(wrong), 0)}
    for several in ("countdown", "vqa_accuracy", "file.py:own"):
        assert len(tally(trials, group_of(several)).votes or ()) > 2
