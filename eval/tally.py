"""Several trials of each problem: which there are, and how many of them passed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from eval.trial import Trial, TrialError
from rewards.maths import as_number
from rewards.normalise import normalise

Group: TypeAlias = Callable[[Trial], Hashable | None]
"""The answer that a trial votes for: equal for equal answers, None for no vote."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One of the answers to a problem: how many graded trials gave it, and how many of these passed."""

    trials: int
    passes: int


@dataclass(frozen=True, slots=True)
class Tally:
    """One problem: `n` graded trials of which `passes` passed.

    `votes` are its distinct answers; trials without an answer are in none. None: answers were not looked at.
    """

    problem: str
    cluster: str
    n: int
    passes: int
    votes: tuple[Vote, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.passes <= self.n:
            raise ValueError(f"problem `{self.problem}`: {self.passes} of {self.n} trials cannot have passed")
        if self.votes is not None and sum(vote.trials for vote in self.votes) > self.n:
            raise ValueError(f"problem `{self.problem}`: more votes than its {self.n} trials")


def by_problem(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """The trials of each problem, problems in order of first appearance.

    Raises:
        TrialError: a sample of a problem occurs twice, or a problem is in two clusters.
    """
    found: dict[str, list[Trial]] = defaultdict(list)
    seen: set[tuple[str, int]] = set()
    for trial in trials:
        key = trial.problem_id, trial.sample
        if key in seen:
            raise TrialError(f"there are two trials for problem `{trial.problem_id}`, sample {trial.sample}")
        seen.add(key)
        same = found[trial.problem_id]
        if same and trial.cluster != same[0].cluster:
            raise TrialError(f"problem `{trial.problem_id}` is in clusters `{same[0].cluster}` and `{trial.cluster}`")
        same.append(trial)
    return dict(found)


def by_answer(trial: Trial) -> str | None:
    """The normal form of the strictly extracted answer; None where a trial has none that counts."""
    answer = trial.extract.strict
    if answer is None or trial.outcome in ("unparsed", "truncated"):
        return None
    return normalise(answer) or answer


def group_of(reward: str) -> Group:
    """By which equality a reward's answers are votes for one another: numbers by value, words by their normal form, all
    else, such as expressions and grids, as they stand but for white space."""
    if reward in ("exact_match", "vqa_accuracy"):
        return by_answer
    numeric = reward in ("number", "maths")

    def group(trial: Trial) -> Hashable | None:
        answer = trial.extract.strict
        if answer is None or trial.outcome in ("unparsed", "truncated"):
            return None
        plain = "".join(answer.split())
        value = as_number(plain.replace("$", "")) if numeric else None
        return plain if value is None else value

    return group


def tally(trials: Sequence[Trial], group: Group = by_answer) -> Tally:
    """The tally of one problem, whose trials these are; what could not be graded is left out."""
    graded = [trial for trial in trials if trial.outcome != "ungraded"]
    answers: dict[Hashable, list[bool]] = defaultdict(list)
    for trial in graded:
        if (answer := group(trial)) is not None:
            answers[answer].append(trial.outcome == "correct")
    return Tally(
        problem=trials[0].problem_id,
        cluster=trials[0].cluster,
        n=len(graded),
        passes=sum(trial.outcome == "correct" for trial in graded),
        votes=tuple(Vote(len(each), sum(each)) for each in answers.values()),
    )
