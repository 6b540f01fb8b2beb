"""What a stress grid's report says of trials."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from eval.stats import paired_difference
from eval.stress.grid import CLEAN, Cell, Grid
from eval.stress.report import stress_report
from eval.summary import accuracy_of
from eval.trial import Trial, TrialError

Make = Callable[..., Trial]
GRID = Grid((0.25, 1.0), (1, 2, 3))
PROBLEMS = 120


def trials(make: Make, share: float, seed: int = 0) -> list[Trial]:
    """Of problems in clusters of three, the same ones are right for a larger share too."""
    rank = np.random.default_rng(seed).random(PROBLEMS)
    return [make(f"p{n}", "correct" if rank[n] < share else "wrong", cluster=f"c{n // 3}") for n in range(PROBLEMS)]


def cells(make: Make, shares: Mapping[tuple[float, int], float]) -> list[tuple[Cell, list[Trial]]]:
    return [(cell, trials(make, shares.get((cell.scope, cell.severity), 0.8))) for cell in GRID.cells()]


def test_cells_are_compared_with_the_clean_one_problem_by_problem(make_trial: Make) -> None:
    given = cells(make_trial, {(1.0, 3): 0.3, (1.0, 2): 0.6})
    found = stress_report(given)
    assert found.clean.accuracy == accuracy_of(given[0][1]) and found.clean.difference is None
    by_cell = {(each.scope, each.severity): each for each in found.cells}
    assert len(by_cell) == 6
    scores = [[trial.score for trial in each] for each in (given[-1][1], given[0][1])]
    clusters = [trial.cluster for trial in given[0][1]]
    assert by_cell[1.0, 3].difference == paired_difference(*scores, clusters)
    same = by_cell[0.25, 2].difference
    assert same is not None and (same.estimate.value, same.estimate.low, same.estimate.high) == (0.0, 0.0, 0.0)
    assert by_cell[1.0, 3].p_holm is not None and by_cell[1.0, 3].p_holm < 0.05
    assert {name: (each.scope, each.severity) for name, each in found.corners.items()} == {
        "sparse-mild": (0.25, 1), "sparse-severe": (0.25, 3), "dense-mild": (1.0, 1), "dense-severe": (1.0, 3),
    }  # fmt: skip
    assert found.bug is None


def test_a_drop_at_sparse_mild_is_flagged_as_a_bug(make_trial: Make) -> None:
    found = stress_report(cells(make_trial, {(0.25, 1): 0.6}))
    assert found.bug is not None and "is a bug in model or prompt" in found.bug
    assert found.text().endswith(found.bug) and "scope 0.25, severity 1 (sparse-mild)" in found.text()
    # A drop elsewhere is none, nor is a rise.
    assert stress_report(cells(make_trial, {(1.0, 3): 0.1})).bug is None
    assert stress_report(cells(make_trial, {(0.25, 1): 1.0})).bug is None


def test_the_report_is_strict_json(make_trial: Make) -> None:
    one = [(cell, [make_trial("p", "correct")]) for cell in GRID.cells()]
    found = stress_report(one)
    written = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert written["cells"][0]["difference"]["estimate"]["low"] is None
    assert "2 clusters" in written["cells"][0]["difference"]["estimate"]["reason"]
    assert written["corners"]["dense-severe"]["scope"] == 1.0


def test_ungraded_trials_leave_their_problem_out_of_the_difference(make_trial: Make) -> None:
    given = cells(make_trial, {})
    many = [make_trial(each.problem_id, "ungraded", cluster=each.cluster) for each in given[2][1][: PROBLEMS // 10]]
    given[2] = (given[2][0], [*many, *given[2][1][PROBLEMS // 10 :]])
    unknown = stress_report(given).cells[1]
    assert unknown.difference is not None and unknown.difference.estimate.value is unknown.p_holm is None
    lost = given[1][1][0]
    given[1] = (given[1][0], [make_trial("p0", "ungraded", cluster=lost.cluster), *given[1][1][1:]])
    found = stress_report(given).cells[0]
    assert found.left_out == 1 and found.difference is not None and found.difference.estimate.n == PROBLEMS - 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda given: given[1:], "one clean cell, with scope or severity 0, not 0"),
        (lambda given: [*given, (Cell(0.0, 2), given[0][1])], "not 2"),
        (lambda given: given[:-1], "scope 1, severity 3 is there 0 times, not once"),
        (lambda given: [*given, given[-1]], "scope 1, severity 3 is there 2 times"),
        (lambda given: [*given[:-1], (given[-1][0], given[-1][1][1:])], "have other problems: `p0` is in one alone"),
        (lambda given: given[:1], "cells beside the clean one"),
    ],
)  # fmt: skip
def test_a_grid_with_holes_is_refused_in_a_line(
    make_trial: Make, change: Callable[[list[tuple[Cell, list[Trial]]]], list[tuple[Cell, list[Trial]]]], told: str
) -> None:
    with pytest.raises(TrialError) as refused:
        stress_report(change(cells(make_trial, {})))
    assert told in str(refused.value) and "\n" not in str(refused.value)


def test_several_checkpoints_are_refused(make_trial: Make) -> None:
    given = cells(make_trial, {})
    given[0] = (CLEAN, [make_trial("p0", "correct", label="other"), *given[0][1][1:]])
    with pytest.raises(TrialError, match="one checkpoint's trials"):
        stress_report(given)
