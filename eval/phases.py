"""Where trials fail first, when a verdict has phases that build on one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eval.trial import Outcome, Trial, TrialError

PHASES = ("finished", "parsed", "valid", "correct")
"""The order where a suite names none: `valid` is legal under the rules of the problem, right or not."""
_OF_OUTCOME: dict[Outcome, str] = {"truncated": "finished", "unparsed": "parsed", "wrong": "correct"}


@dataclass(frozen=True, slots=True)
class Phase:
    """Of the trials that `reached` a phase, those that `failed` there first.

    `share` is failed/reached, None where none came so far; `of_all` is failed/graded. The `of_all` of all phases and
    the share of trials that passed add up to 1.
    """

    name: str
    reached: int
    failed: int
    share: float | None
    of_all: float


def first_failures(trials: Iterable[Trial], order: Sequence[str] = PHASES) -> tuple[Phase, ...]:
    """The table over the graded trials, with the phases that they have. Empty where nothing could be graded.

    A trial's first failure is the earliest phase in which one of its checks fails; what never got that far, or has no
    checks, fails where its outcome says.

    Raises:
        TrialError: a failing check is of no phase in `order`, or a trial counts as correct with a failing check.
    """
    graded = [trial for trial in trials if trial.outcome != "ungraded"]
    if not graded:
        return ()
    failed = Counter(phase for trial in graded if (phase := _first_failure(trial, order)) is not None)
    present = failed.keys() | {check.phase for trial in graded for check in trial.checks} | set(_OF_OUTCOME.values())
    rows: list[Phase] = []
    reached = len(graded)
    for name in order:
        if name in present:
            here = failed[name]
            rows.append(Phase(name, reached, here, here / reached if reached else None, here / len(graded)))
            reached -= here
    return tuple(rows)


def _first_failure(trial: Trial, order: Sequence[str]) -> str | None:
    phases = [check.phase for check in trial.checks if check.verdict == "fail"]
    where = f"problem `{trial.problem_id}`, sample {trial.sample}"
    if trial.outcome == "correct":
        if phases:
            raise TrialError(f"{where}: counts as correct, but a check of phase `{phases[0]}` fails")
        return None
    # A wrong answer is wrong in its failing checks, where it has any.
    if not (trial.outcome == "wrong" and phases):
        phases.append(_OF_OUTCOME[trial.outcome])
    if unknown := [phase for phase in phases if phase not in order]:
        raise TrialError(f"{where}: fails in phase `{unknown[0]}`; the suite's phases are: {', '.join(order)}")
    return min(phases, key=list(order).index)
