from __future__ import annotations

import math
import re

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower

from eval.power import power_of
from eval.stats import paired_difference, problems_needed


def test_problems_needed_of_the_paper() -> None:
    # arXiv 2411.00640: both sides have sd .5 and correlate by .5, so that their differences have sd .5.
    sd = math.sqrt(0.5**2 + 0.5**2 - 2 * 0.5 * 0.5 * 0.5)
    assert problems_needed(0.03, sd) == problems_needed(-0.03, sd) == 2181


@pytest.mark.parametrize(("effect", "sd", "alpha", "power"), [(0.03, 0.5, 0.05, 0.8), (0.1, 0.7, 0.01, 0.9)])
def test_problems_needed_is_that_of_statsmodels(effect: float, sd: float, alpha: float, power: float) -> None:
    n = NormalIndPower().solve_power(effect / sd, alpha=alpha, power=power, ratio=0)
    assert problems_needed(effect, sd, alpha, power) == math.ceil(n)


def test_no_effect_is_shown_by_no_number() -> None:
    assert problems_needed(0.0, 0.5) is None


def test_that_many_problems_do_show_it() -> None:
    """Simulated: with the number found, four of five comparisons have a difference that is clear."""
    effect, generator = 0.1, np.random.default_rng(5)
    sd = math.sqrt(0.3 - effect**2)  # d in {−1, 0, 1} with chances .1, .7, .2
    n = problems_needed(effect, sd)
    assert n is not None
    d = generator.choice([-1, 0, 1], p=[0.1, 0.7, 0.2], size=(4000, n))
    clear = abs(d.mean(1)) > 1.96 * d.std(1, ddof=1) / math.sqrt(n)
    assert clear.mean() == pytest.approx(0.8, abs=0.02)


def test_the_line() -> None:
    a, b = [1.0] * 30 + [0.0] * 70, [1.0] * 25 + [0.0] * 75
    power = power_of(paired_difference(a, b, list(range(100)), draws=500))
    assert power.detectable == pytest.approx(2.8016 * math.sqrt(0.05 * 0.95 / 99), abs=1e-4)
    assert power.needed == 151
    assert power.line == (
        "At 80% power and the 5% level 100 problems show a difference of 6.1 points; "
        "one of 5.0 points, as found, takes 151 problems."
    )


def test_problems_in_clusters_are_worth_less() -> None:
    d = [1.0] * 5 + [0.0] * 20
    alone = power_of(paired_difference(d * 4, [0.0] * 100, list(range(100)), draws=500))
    whole = power_of(paired_difference(d * 4, [0.0] * 100, [row % 25 for row in range(100)], draws=500))
    # Four equal problems per cluster say what one does, so that four times as many are needed.
    assert alone.needed is not None and whole.needed == pytest.approx(4 * alone.needed, rel=0.05)


@pytest.mark.parametrize(
    ("a", "b", "clusters", "says"),
    [
        ([1.0, 0.0] * 20, [0.0, 1.0] * 20, range(40), "no number shows the 0.0 points found"),
        ([1.0] * 40, [1.0] * 40, range(40), "is not known: all differ by the same amount"),
        ([1.0] * 40, [0.0] * 40, ["one"] * 40, "is not known: an interval takes at least 2 clusters"),
        ([], [], [], "is not known: no graded problem"),
    ],
)
def test_what_is_not_known_is_said(a: list[float], b: list[float], clusters: list[object], says: str) -> None:
    power = power_of(paired_difference(a, b, list(clusters), draws=500))
    assert power.needed is None and re.search(says, power.line)
