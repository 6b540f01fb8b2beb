"""Scores are what their formulas say; what is missing stays missing."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfrefine.triad.measure import Measured
from selfrefine.triad.score import (
    RANDOM,
    SCORES,
    all_scores,
    combine,
    consistency,
    unknown_score,
    visual_gain,
    visual_share,
)

ANSWER_ONLY = ("yes_no", "choice", "caption")
BOTH = ("short", "long", "region")
SIMS = st.floats(0, 1)


def row(kind: str = "short", **values: Any) -> dict[str, Any]:
    return asdict(Measured("a/0", kind)) | values


@given(SIMS, SIMS, st.sampled_from(BOTH))
def test_consistency_is_the_geometric_mean_of_both_edges(question: float, answer: float, kind: str) -> None:
    found = consistency(row(kind, sim_question=question, sim_answer=answer))
    assert found is not None and 0 <= found <= 1
    assert found == pytest.approx(math.sqrt(question) * math.sqrt(answer), rel=1e-12, abs=1e-150)
    assert min(question, answer) - 1e-12 <= found <= max(question, answer) + 1e-12


@pytest.mark.parametrize("kind", BOTH)
def test_consistency_is_one_iff_both_are_and_nought_iff_one_is(kind: str) -> None:
    levels = (0.0, 0.25, 0.999, 1.0)
    for question in levels:
        for answer in levels:
            found = consistency(row(kind, sim_question=question, sim_answer=answer))
            assert (found == 1) == (question == answer == 1)
            assert (found == 0) == (0 in (question, answer))


@pytest.mark.parametrize("kind", ANSWER_ONLY)
@given(answer=SIMS)
def test_one_used_edge_is_the_score(kind: str, answer: float) -> None:
    assert consistency(row(kind, sim_question=None, sim_answer=answer)) == answer
    assert consistency(row(kind, sim_question=0.3, sim_answer=answer)) == answer


@pytest.mark.parametrize("kind", BOTH)
def test_a_missing_edge_is_never_nought(kind: str) -> None:
    assert consistency(row(kind, sim_question=None, sim_answer=1.0)) is None
    assert consistency(row(kind, sim_question=1.0, sim_answer=None)) is None


def test_no_measurement_means_no_score_for_every_score_but_chance() -> None:
    scores = all_scores([row(), row("yes_no")], 0)
    assert scores.keys() == {*SCORES, RANDOM}
    for name, values in scores.items():
        assert all((value is None) == (name != RANDOM) for value in values)


def test_the_share_of_the_image_in_an_answer() -> None:
    half, sure = math.log(0.5), math.log(0.99)
    assert visual_share(row(log_answer=half / 2, log_answer_blind=half)) == pytest.approx(0.5)
    assert visual_share(row(log_answer=0.0, log_answer_blind=half)) == 1  # the image says it all
    assert visual_share(row(log_answer=half, log_answer_blind=half)) == 0  # the image says nothing
    assert visual_share(row(log_answer=2 * half, log_answer_blind=half)) == pytest.approx(-1)  # it speaks against
    # Certain without the image: nothing left to tell, and no division by almost nothing.
    assert visual_share(row(log_answer=-1e-9, log_answer_blind=sure)) == 0
    assert visual_share(row(log_answer=-1e-9, log_answer_blind=0.0)) == 0
    assert visual_gain(row(log_answer=half / 2, log_answer_blind=half)) == pytest.approx(-half / 2)
    for name in ("log_answer", "log_answer_blind"):
        assert visual_share(row(**{name: half})) is None and visual_gain(row(**{name: half})) is None


def test_one_score_is_combined_to_itself() -> None:
    assert combine([[0.3, None, 0.1]], ["a", "a", "b"]) == [0.3, None, 0.1]


def test_several_scores_are_ranked_inside_their_type() -> None:
    # In type a: ranks 1, 2, 3 of 3 and 3, 1.5, 1.5 of 3. Type b has one row that counts: the top of its own.
    first = [1.0, 5.0, 100.0, -7.0, None]
    second = [9.0, 2.0, 2.0, 1e-9, 4.0]
    combined = combine([first, second], ["a", "a", "a", "b", "b"])
    assert combined[:4] == pytest.approx([(1 + 3) / 6, (2 + 1.5) / 6, (3 + 1.5) / 6, 1.0])
    assert combined[4] is None


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=20))
def test_a_combination_depends_on_order_alone(values: list[tuple[int, int]]) -> None:
    first, second = [float(a) for a, _ in values], [float(b) for _, b in values]
    types = ["a" if i % 3 else "b" for i in range(len(values))]
    stretched = combine([[math.exp(a / 10) for a in first], [b**3 for b in second]], types)
    assert combine([first, second], types) == pytest.approx(stretched)
    assert all(value is not None and 0 < value <= 1 for value in stretched)


def test_chance_knows_the_id_and_the_seed_alone() -> None:
    rows = [row() | {"id": f"{i}/0"} for i in range(1000)]
    drawn = all_scores(rows, 0)[RANDOM]
    assert drawn == all_scores(rows[::-1], 0)[RANDOM][::-1]
    assert drawn != all_scores(rows, 1)[RANDOM]
    assert sum(value for value in drawn if value is not None) / 1000 == pytest.approx(0.5, abs=0.03)


def test_a_mistyped_score_is_told_its_neighbour() -> None:
    assert "did you mean 'consistency'" in str(unknown_score("consistancy"))
    assert "visual_gain" in str(unknown_score("zzz"))
    assert unknown_score("random") is None
