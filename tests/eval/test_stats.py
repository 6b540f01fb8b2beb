"""The identities of the statistics, against closed forms, reference libraries and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, mannwhitneyu
from statsmodels.stats.multitest import multipletests

from eval.stats import (
    auroc,
    clopper_pearson,
    clustered_se,
    detectable_effect,
    function_interval,
    holm,
    mean_interval,
    paired_difference,
    ratio,
)

TEN = [1, 0, 1, 1, 0, 0, 1, 1, 0, 1]


def test_clustered_se_reference_value() -> None:
    # The value of the test of inspect_ai's `stderr(cluster=...)`.
    assert clustered_se(range(20), [i % 4 for i in range(20)]) == pytest.approx(0.645, abs=5e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=8, max_size=60))
def test_clustered_se_is_that_of_statsmodels(rows: list[tuple[int, int]]) -> None:
    values, clusters = zip(*rows, strict=True)
    if len(set(clusters)) > 1:
        from statsmodels.regression.linear_model import OLS

        fit = OLS(np.array(values, float), np.ones(len(values)))
        theirs = fit.fit(cov_type="cluster", cov_kwds={"groups": np.array(clusters)}).bse[0]
        assert clustered_se(values, clusters) == pytest.approx(theirs, abs=1e-9)


def test_clustered_se_with_singletons_is_the_plain_one() -> None:
    plain = np.std(TEN, ddof=1) / math.sqrt(len(TEN))
    assert clustered_se(TEN, list(range(10))) == pytest.approx(plain, rel=1e-12)
    assert plain == pytest.approx(0.16330, abs=5e-6)


def test_repeating_every_problem_in_its_own_cluster_adds_nothing() -> None:
    repeated = TEN * 4
    assert clustered_se(repeated, list(range(10)) * 4) == pytest.approx(clustered_se(TEN, list(range(10))), rel=1e-12)
    assert clustered_se(repeated, list(range(40))) == pytest.approx(0.07845, abs=5e-6)
    one, four = mean_interval(TEN, list(range(10))), mean_interval(repeated, list(range(10)) * 4)
    assert (one.low, one.high) == pytest.approx((four.low, four.high), abs=1e-12)


def test_bootstrap_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    x = np.random.default_rng(0).random(80)
    ours = mean_interval(x, list(range(80)))
    theirs = bootstrap((x,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_skew_is_mended_as_scipy_does_at_the_level_of_a_t_quantile() -> None:
    """With the shape of a skewed sample by scipy: its kurtosis gives the degrees of freedom, its BCa the draws."""
    from scipy.stats import bootstrap, kurtosis, norm, t

    x = np.random.default_rng(4).beta(0.3, 2.7, 40)
    freedom = min(39.0, 2 * 40 / (kurtosis(x, bias=False) + 2))
    level = 2 * norm.cdf(t.ppf(0.975, freedom) * math.sqrt(40 / 39)) - 1
    theirs = bootstrap((x,), np.mean, n_resamples=40_000, method="BCa", confidence_level=level, rng=1)
    ours = mean_interval(x, list(range(40)), draws=40_000)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.004)
    plain = np.quantile(np.random.default_rng(0).choice(x, (4000, 40)).mean(1), [0.025, 0.975])
    assert ours.low > plain[0] and ours.high > plain[1] + 0.01  # type: ignore[operator]


def test_large_samples_have_the_percentile_interval() -> None:
    x = (np.random.default_rng(5).random(3000) < 0.2).astype(float)
    ours = mean_interval(x, list(range(3000)), draws=4000)
    plain = x.mean() + 1.96 * x.std() / math.sqrt(3000) * np.array([-1, 1])
    assert (ours.low, ours.high) == pytest.approx(tuple(plain), abs=0.0012)


def test_bootstrap_draws_clusters_not_problems() -> None:
    # Brute force over all 3³ draws of three clusters of unlike size.
    groups = [[1.0], [0.0, 0.0, 1.0], [1.0, 0.0]]
    means = sorted(
        sum(map(sum, drawn)) / sum(map(len, drawn))
        for drawn in ([groups[i], groups[j], groups[k]] for i in range(3) for j in range(3) for k in range(3))
    )
    flat = [value for group in groups for value in group]
    names = [name for name, group in enumerate(groups) for _ in group]
    ours = mean_interval(flat, names)
    assert (ours.low, ours.high) == pytest.approx((means[0], means[-1]))  # Three clusters reach for the last draw.


def test_coverage_holds_under_clustering_where_the_naive_interval_fails() -> None:
    """300 worlds of 60 images with 12 questions whose answers hang together."""
    worlds, images, questions, truth = 300, 60, 12, 0.5
    generator = np.random.default_rng(7)
    clustered = naive = 0
    names = np.repeat(np.arange(images), questions).tolist()
    for world in range(worlds):
        ability = generator.beta(1.5, 1.5, images)
        x = (generator.random((images, questions)) < ability[:, None]).astype(float).ravel()
        interval = mean_interval(x, names, draws=1000, seed=world)
        assert interval.low is not None and interval.high is not None
        clustered += interval.low <= truth <= interval.high
        naive += abs(x.mean() - truth) <= 1.96 * x.std(ddof=1) / math.sqrt(x.size)
    assert 0.93 <= clustered / worlds <= 0.97
    assert naive / worlds < 0.80


@pytest.mark.parametrize(("images", "truth"), [(25, 0.1), (40, 0.3)])
def test_coverage_holds_where_clusters_are_few_uneven_and_skewed(images: int, truth: float) -> None:
    """Where the percentile bootstrap has it in 87 and 93 of 100 worlds. With 3,000 worlds: 94.7 and 95.2 %."""
    worlds = 400
    generator = np.random.default_rng(1)
    covered = 0
    for world in range(worlds):
        sizes = 1 + generator.geometric(0.15, images)
        ability = np.repeat(generator.beta(3 * truth, 3 * (1 - truth), images), sizes)
        x = (generator.random(len(ability)) < ability).astype(float)
        interval = mean_interval(x, np.repeat(np.arange(images), sizes).tolist(), draws=1000, seed=world)
        assert interval.low is not None and interval.high is not None
        covered += interval.low <= truth <= interval.high
    assert 0.925 <= covered / worlds <= 0.975


def test_clusters_that_are_as_good_as_few_warn() -> None:
    names = [0] * 500 + list(range(1, 40))
    assert mean_interval([i % 2 for i in range(539)], names).warning == (
        "40 clusters so uneven that they are as good as 1: the interval is rough"
    )


def test_nothing_right_gives_clopper_pearson_over_clusters() -> None:
    none = mean_interval([0.0] * 30, list(range(30)))
    assert (none.low, none.high) == (0.0, pytest.approx(0.1157, abs=5e-5))
    assert none.method == "Clopper-Pearson over clusters"
    # 30 problems of 10 images say less than 30 of 30.
    ten = mean_interval([1.0] * 30, [i // 3 for i in range(30)])
    assert (ten.low, ten.high) == (pytest.approx(0.6915, abs=5e-5), 1.0)


@settings(deadline=None)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_is_scipys(case: tuple[int, int]) -> None:
    successes, n = case
    reference = binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_one_cluster_has_no_interval_and_says_so() -> None:
    one = mean_interval([1.0, 0.0], ["a", "a"])
    assert (one.value, one.low, one.high, one.se) == (0.5, None, None, None)
    assert one.reason is not None and "2 clusters" in one.reason
    assert paired_difference([1.0, 0.0], [0.0, 0.0], ["a", "a"]).p is None


def test_no_problem_has_no_mean() -> None:
    assert mean_interval([], []).value is None


def test_few_clusters_warn() -> None:
    assert mean_interval(TEN, list(range(10))).warning is not None
    assert mean_interval(TEN * 2, list(range(20))).warning is None


@pytest.mark.parametrize("cluster", [None, "", float("nan")])
def test_a_missing_cluster_is_named(cluster: object) -> None:
    with pytest.raises(ValueError, match="row 1 has no cluster"):
        mean_interval([1.0, 0.0], ["a", cluster])


def test_a_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has no finite value"):
        mean_interval([1.0, float("nan")], ["a", "b"])


def test_a_against_itself_is_zero() -> None:
    same = paired_difference(TEN, TEN, list(range(10)))
    assert (same.estimate.value, same.estimate.low, same.estimate.high) == (0.0, 0.0, 0.0)
    assert (same.p, same.better, same.worse, same.same) == (1.0, 0.0, 0.0, 1.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 6)), min_size=4, max_size=40))
def test_exchanging_the_sides_negates_everything(rows: list[tuple[int, int, int]]) -> None:
    a, b, clusters = zip(*rows, strict=True)
    there, back = (paired_difference(x, y, clusters, draws=500) for x, y in ((a, b), (b, a)))
    assert there.estimate.value == -back.estimate.value  # type: ignore[operator]
    if there.estimate.low is not None:
        assert (there.estimate.low, there.estimate.high) == (-back.estimate.high, -back.estimate.low)  # type: ignore[operator]
    assert (there.p, there.better, there.worse, there.same) == (back.p, back.worse, back.better, back.same)


@pytest.mark.parametrize(("n", "shown"), [(2, False), (5, False), (6, True)])
def test_all_right_against_all_wrong_is_no_certainty(n: int, shown: bool) -> None:
    """By the two sides' exact intervals: 1 − √2·w with w the width of theirs; and not above 0 where p is not small."""
    found = paired_difference([1.0] * n, [0.0] * n, list(range(n)))
    width = 1 - binomtest(n, n).proportion_ci(0.95, method="exact").low
    assert found.p is not None and (found.p <= 0.05) == shown
    assert found.estimate.low == pytest.approx(1 - math.sqrt(2) * width if shown else min(0, 1 - math.sqrt(2) * width))
    assert found.estimate.high == 1 and found.estimate.method == "the two sides' intervals put together"


def test_a_difference_that_ends_up_in_no_cluster_has_an_interval() -> None:
    """Each image gains a question and loses one: not the same as no difference at all."""
    found = paired_difference([1.0, 0.0] * 20, [0.0, 1.0] * 20, [i // 2 for i in range(40)]).estimate
    assert found.value == 0 and found.low is not None and found.low < -0.1 < 0.1 < (found.high or 0)


@pytest.mark.parametrize("flips", range(3, 9))
def test_the_interval_excludes_no_difference_only_where_p_does(flips: int) -> None:
    a = [1.0] * flips + [0.0] * (100 - flips)
    found = paired_difference(a, [0.0] * 100, list(range(100)))
    assert found.estimate.low is not None and found.p is not None
    assert (found.estimate.low > 0) == (found.p <= 0.05) == (flips > 5)


def test_pairing_finds_what_two_intervals_hide() -> None:
    generator = np.random.default_rng(3)
    base = (generator.random(400) < 0.5).astype(float)
    better = np.where(generator.random(400) < 0.05, 1.0, base)
    clusters = list(range(400))
    a, b = mean_interval(better, clusters), mean_interval(base, clusters)
    assert a.low < b.high  # type: ignore[operator]
    difference = paired_difference(better, base, clusters)
    assert difference.estimate.low > 0 and difference.p < 0.01  # type: ignore[operator]


def test_sign_flip_p_is_the_exact_one() -> None:
    # Four clusters that all say +1: of 16 arrangements 2 are as extreme.
    p = paired_difference([1.0] * 4, [0.0] * 4, list("abcd")).p
    assert p == pytest.approx(2 / 16, abs=0.01)
    # Whole clusters flip: the same 4 values in one pair of clusters leave 2 of 4 arrangements.
    assert paired_difference([1.0] * 4, [0.0] * 4, list("aabb")).p == pytest.approx(0.5, abs=0.015)


def test_sign_flip_p_is_that_of_scipy() -> None:
    from scipy.stats import permutation_test

    generator = np.random.default_rng(2)
    d = generator.choice([-0.5, 0.0, 0.5, 1.0], size=11)
    exact = permutation_test((d, np.zeros(11)), lambda x, y: np.mean(x - y), permutation_type="samples").pvalue
    assert paired_difference(d, np.zeros(11), list(range(11))).p == pytest.approx(exact, abs=0.015)


def test_sign_flip_p_is_uniform_when_nothing_differs() -> None:
    generator = np.random.default_rng(11)
    small = sum(
        paired_difference(*generator.random((2, 40)), list(range(40)), draws=400, seed=i).p < 0.1  # type: ignore[operator, misc]
        for i in range(300)
    )
    assert 0.06 <= small / 300 <= 0.14


def test_seeds_are_averaged_per_problem_first() -> None:
    a, b = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 0]]), np.zeros((3, 4))
    over = paired_difference(a, b, list("wxyz"))
    by_hand = paired_difference(a.mean(0), b.mean(0), list("wxyz"))
    assert over == by_hand
    assert over.estimate.n == 4 and over.estimate.value == pytest.approx(7 / 12)
    assert (over.better, over.same) == (1.0, 0.0)


def test_equal_means_are_the_same_whatever_the_order_of_their_seeds() -> None:
    a, b = np.array([[0.1], [0.2], [0.3]]), np.array([[0.3], [0.2], [0.1]])
    assert a.mean(0) != b.mean(0)  # In their last bits.
    found = paired_difference(np.repeat(a, 20, 1), np.repeat(b, 20, 1), list(range(20)))
    assert (found.estimate.value, found.better, found.same, found.p) == (0.0, 0.0, 1.0, 1.0)


def test_a_seed_gives_one_result() -> None:
    assert mean_interval(TEN, list(range(10)), seed=5) == mean_interval(TEN, list(range(10)), seed=5)
    assert mean_interval(range(10), list(range(10)), seed=5) != mean_interval(range(10), list(range(10)), seed=6)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_leaves_out_what_has_no_p() -> None:
    assert holm([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04])


@pytest.mark.parametrize(("n", "points"), [(1319, 3.9), (500, 6.3), (30, 25.6)])
def test_detectable_effect(n: int, points: float) -> None:
    # arXiv 2411.00640: sd 0.5 on both sides, correlation 0.5, so the differences have sd 0.5 too.
    assert 100 * detectable_effect(0.5 / math.sqrt(n)) == pytest.approx(points, abs=0.05)


def test_problems_needed() -> None:
    assert detectable_effect(0.5 / math.sqrt(2181)) <= 0.03 < detectable_effect(0.5 / math.sqrt(2180))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_auroc_is_mann_whitney(rows: list[tuple[int, bool]]) -> None:
    scores, truth = zip(*rows, strict=True)
    positive = [s for s, t in rows if t]
    negative = [s for s, t in rows if not t]
    if not positive or not negative:
        assert auroc(scores, truth) is None
    else:
        u = mannwhitneyu(positive, negative).statistic
        assert auroc(scores, truth) == pytest.approx(u / (len(positive) * len(negative)))


def test_a_ratio_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    generator = np.random.default_rng(0)
    below = generator.random(80) + 0.5
    above = 0.5 * below + 0.2 * generator.random(80)
    ours = function_interval(np.stack([above, below], 1), list(range(80)), ratio, "nothing is below")
    theirs = bootstrap(
        (above, below),
        lambda x, y, axis: x.mean(axis) / y.mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        method="percentile",
        rng=1,
    ).confidence_interval
    assert ours.value == pytest.approx(above.mean() / below.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)


def test_coverage_of_a_ratio_of_blocks_where_the_naive_interval_fails() -> None:
    """Conversations of 6 problems, of which four in ten go astray as a whole: the true ratio is .6."""
    worlds, blocks, each, truth = 300, 60, 6, 0.6
    generator = np.random.default_rng(0)
    names = np.repeat(np.arange(blocks), each).tolist()
    clustered = naive = 0
    for world in range(worlds):
        alone = (generator.random((blocks, each)) < 0.8).astype(float)
        together = alone * (generator.random((blocks, 1)) < truth)
        rows = np.stack([together.ravel(), alone.ravel()], 1)
        found = function_interval(rows, names, ratio, "nothing", draws=500, seed=world)
        assert found.value is not None and found.low is not None and found.high is not None
        clustered += found.low <= truth <= found.high
        naive += abs(found.value - truth) <= 1.96 * math.sqrt(found.value * (1 - found.value) / alone.sum())
    assert 0.93 <= clustered / worlds <= 0.97
    assert naive / worlds < 0.75


def test_a_function_of_one_mean_is_the_mean() -> None:
    alone = mean_interval(TEN, list(range(10)))
    found = function_interval(np.reshape(TEN, (-1, 1)), list(range(10)), lambda means: means[:, 0], "never")
    assert (found.value, found.low, found.high, found.warning) == (alone.value, alone.low, alone.high, alone.warning)


def test_a_function_that_no_draw_moves_has_no_interval() -> None:
    found = function_interval([[1.0, 2.0]] * 30, list(range(30)), ratio, "nothing is below")
    assert (found.value, found.low, found.reason) == (0.5, None, "every draw of clusters gives the same value")


def test_a_ratio_without_denominator_is_none_with_a_reason() -> None:
    nothing = function_interval([[1.0, 0.0]] * 4, list("abcd"), ratio, "nothing is below")
    assert (nothing.value, nothing.low, nothing.reason) == (None, None, "nothing is below")
    one = function_interval([[1.0, 2.0]] * 4, list("aaaa"), ratio, "nothing is below")
    assert (one.value, one.low, one.reason) == (0.5, None, "an interval takes at least 2 clusters")
