"""A transformer trained on a split: composable chains are learned, blocked ones are not. Takes up to a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.composition import measured

STEPS = 320


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_composable_chains_are_above_blocked_ones(tmp_path: Path, seed: int) -> None:
    found = measured("sense", seed, tmp_path, STEPS)
    gap = found.gaps["composable - blocked"]
    assert gap.low is not None and gap.low > 0.15
    seen, unseen = found.accuracy["iid"].value, found.accuracy["composable"].value
    assert seen is not None and unseen is not None and abs(seen - unseen) < 0.15


def test_where_operators_act_alone_nothing_is_blocked_in_truth(tmp_path: Path) -> None:
    found = measured("alone", 0, tmp_path, 120)
    gap = found.gaps["composable - blocked"]
    assert gap.value is not None and abs(gap.value) < 0.05
    blocked = found.accuracy["blocked"].value
    assert blocked is not None and blocked > 0.9
