from __future__ import annotations

import itertools

import numpy as np
import pytest

from eval.marathon import Turn, marathon


def turns(blocks: list[list[tuple[float | None, float | None]]]) -> list[Turn]:
    return [
        Turn(f"b{block}", position, together, alone)
        for block, pairs in enumerate(blocks)
        for position, (together, alone) in enumerate(pairs, start=1)
    ]


def test_one_problem_at_a_time_is_no_marathon() -> None:
    # Greedy, and nothing stands before the problem: both sides are the same.
    found = marathon(turns([[(float(row % 3 > 0),) * 2] for row in range(40)]), draws=1000)
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == (1.0, 1.0, 1.0)
    assert len(found.positions) == 1


def test_ratio_draws_blocks_and_computes_both_means_anew() -> None:
    blocks = [[(1.0, 1.0), (0.0, 1.0)], [(1.0, 1.0), (1.0, 1.0)], [(0.0, 0.0), (0.0, 1.0)]]
    found = marathon(turns(blocks), draws=2000)
    assert found.ratio.value == pytest.approx(3 / 5)
    sums = [np.sum(block, axis=0) for block in blocks]
    drawn = sorted(
        float((a := sum(draw))[0] / a[1])  # type: ignore[index]
        for draw in itertools.product(sums, repeat=3)
    )
    assert (found.ratio.low, found.ratio.high) == pytest.approx((drawn[0], drawn[-1]))
    assert (found.ratio.n, found.ratio.clusters) == (6, 3)
    assert (found.together.value, found.alone.value) == pytest.approx((3 / 6, 5 / 6))


def test_positions_and_overflow() -> None:
    made = [
        Turn(f"b{block}", position, None if position == 3 else 1.0, 1.0, overflow=position == 3)
        for block in range(20)
        for position in (1, 2, 3)
    ]
    found = marathon(made, draws=500)
    assert [each.value for each in found.positions] == [1.0, 1.0, 0.0]
    assert (found.overflow, found.left_out) == (20, 0)
    assert found.ratio.value == pytest.approx(2 / 3)


def test_what_one_side_could_not_grade_is_in_neither_mean() -> None:
    blocks: list[list[tuple[float | None, float | None]]] = [[(1.0, 1.0)] * 5 for _ in range(20)]
    blocks[0][0], blocks[1][0] = (None, 1.0), (0.0, None)
    found = marathon(turns(blocks), draws=500)
    assert (found.left_out, found.ratio.value, found.together.n, found.alone.n) == (2, 1.0, 98, 98)
    assert found.ratio.warning is not None and "over 98 of 100 problems" in found.ratio.warning
    assert found.positions[0].reason == "only 18 of 20 problems could be graded on both sides"
    many = marathon(turns([[(None, 1.0), (1.0, 1.0)]] * 20), draws=500)
    assert (many.ratio.value, many.ratio.reason) == (None, "only 20 of 40 problems could be graded on both sides")


def test_nothing_right_alone_leaves_no_ratio() -> None:
    found = marathon(turns([[(1.0, 0.0)]] * 20), draws=500)
    assert (found.ratio.value, found.ratio.reason) == (None, "nothing is right alone")
    assert marathon([]).ratio.reason == "no graded problem"


def test_two_turns_in_one_place_are_named() -> None:
    with pytest.raises(ValueError, match="block `b` has two turns at position 2"):
        marathon([Turn("b", 2, 1.0, 1.0), Turn("b", 2, 0.0, 1.0)])
