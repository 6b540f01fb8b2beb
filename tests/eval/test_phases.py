from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.phases import PHASES, first_failures
from eval.trial import Trial, TrialError


def checks(**verdicts: str) -> list[dict[str, str]]:
    """Checks by the name of their phase; a name ending in `_` is a second check of its phase."""
    return [{"name": name, "phase": name.rstrip("_"), "verdict": verdict} for name, verdict in verdicts.items()]


def test_phases_of_outcomes_alone(make_trials: Callable[..., list[Trial]]) -> None:
    outcomes = ["truncated"] * 2 + ["unparsed"] * 3 + ["wrong"] * 1 + ["correct"] * 4 + ["ungraded"] * 5
    found = first_failures(make_trials([[each] for each in outcomes]))
    assert [(each.name, each.reached, each.failed) for each in found] == [
        ("finished", 10, 2),
        ("parsed", 8, 3),
        ("correct", 5, 1),
    ]
    assert [each.share for each in found] == [0.2, 3 / 8, 1 / 5]


def test_valid_is_there_where_checks_say_so(make_trial: Callable[..., Trial]) -> None:
    trials = [
        make_trial("p0", "wrong", checks=checks(valid="fail", correct="fail")),
        make_trial("p1", "wrong", checks=checks(valid="pass", correct="fail")),
        make_trial("p2", "correct", checks=checks(valid="pass", correct="pass")),
        make_trial("p3", "truncated"),
    ]
    found = first_failures(trials)
    assert [(each.name, each.reached, each.failed) for each in found] == [
        ("finished", 4, 1),
        ("parsed", 3, 0),
        ("valid", 3, 1),
        ("correct", 2, 1),
    ]


def test_the_first_failing_phase_is_first_in_the_suites_order(make_trial: Callable[..., Trial]) -> None:
    order = ["finished", "parsed", "plan", "act"]
    trials = [
        make_trial("p0", "wrong", checks=checks(act="fail", plan="pass", plan_="fail")),
        make_trial("p1", "wrong", checks=checks(act="fail", plan="na")),
        make_trial("p2", "correct", checks=checks(act="na", plan="pass")),
    ]
    found = first_failures(trials, order)
    assert [(each.name, each.failed) for each in found] == [("finished", 0), ("parsed", 0), ("plan", 1), ("act", 1)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["correct", "wrong", "unparsed", "truncated", "ungraded"]),
            st.lists(st.tuples(st.sampled_from(PHASES), st.sampled_from(["pass", "fail", "na"])), max_size=4),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_failures_and_passes_add_up(
    make_trial: Callable[..., Trial], rows: list[tuple[str, list[tuple[str, str]]]]
) -> None:
    trials = [
        make_trial(
            f"p{row}",
            outcome,
            checks=[
                {"name": f"{phase}{place}", "phase": phase, "verdict": verdict}
                for place, (phase, verdict) in enumerate(found)
                if outcome != "correct" or verdict != "fail"
            ],
        )
        for row, (outcome, found) in enumerate(rows)
    ]
    table = first_failures(trials)
    counts = Counter(outcome for outcome, _ in rows)
    graded = len(rows) - counts["ungraded"]
    if not graded:
        assert table == ()
        return
    assert sum(each.failed for each in table) + counts["correct"] == graded == table[0].reached
    assert sum(each.of_all for each in table) + counts["correct"] / graded == pytest.approx(1)
    for before, after in pairwise(table):
        assert after.reached == before.reached - before.failed
    assert all((each.share is None) == (each.reached == 0) for each in table)


def test_an_unknown_phase_is_named(make_trial: Callable[..., Trial]) -> None:
    with pytest.raises(TrialError, match=r"problem `p`, sample 2: fails in phase `plan`; the suite's phases are: fin"):
        first_failures([make_trial("p", "wrong", 2, checks=checks(plan="fail"))])


def test_correct_with_a_failing_check_is_a_contradiction(make_trial: Callable[..., Trial]) -> None:
    with pytest.raises(TrialError, match="counts as correct, but a check of phase `valid` fails"):
        first_failures([make_trial("p", "correct", checks=checks(valid="fail"))])
