"""Several trials of each problem: which there are, and how many of them passed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from eval.trial import Trial, TrialError
from rewards.maths import as_number
from rewards.normalise import normalise
from rewards.registry import one_answer

_OF_WORDS = ("exact_match", "vqa_accuracy", "choice", "choice_or_value")
_OF_NUMBERS = ("number", "maths", "choice_or_value")
_RIGHT = ("right",)
"""The vote for the one right answer."""
_FRACTION = re.compile(
    r"(?P<sign>-?)(?:\\[dt]?frac(?:(?P<a>[0-9])|\{(?P<a_braced>[0-9]{1,18})\})(?:(?P<b>[0-9])|\{(?P<b_braced>[0-9]{1,18})\})"
    r"|(?P<a_plain>[0-9]{1,18})/(?P<b_plain>[0-9]{1,18}))"
)
"""3/4 and \\frac{3}{4}, with a sign."""

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
    answer = trial.answer
    return None if answer is None else normalise(answer) or answer


def group_of(reward: str | None) -> Group:
    """By which equality answers are votes for one another: numbers and fractions by value, words and options by their
    normal form, all else, such as expressions and grids, as they stand but for white space. None: `by_answer`.

    Where all right answers are one by the reward itself (`rewards.registry.one_answer`), those that it found right are,
    however they are written; two wrong ones that it alone would take for equal stay two. Right answers of a puzzle with
    several solutions are votes for one another only where they are the same solution.
    """
    one = reward is not None and one_answer(reward)
    of_words = reward is None or reward in _OF_WORDS
    of_numbers = reward in _OF_NUMBERS

    def group(trial: Trial) -> Hashable | None:
        answer = trial.answer
        if answer is None:
            return None
        if one and trial.outcome == "correct":
            return _RIGHT
        value = _value("".join(answer.split())) if of_numbers else None
        if value is not None:
            return value
        return by_answer(trial) if of_words else "".join(answer.split())

    return group


def _value(plain: str) -> Fraction | None:
    fraction = _FRACTION.fullmatch(plain.strip("$"))
    if fraction is None:
        return as_number(plain.replace("$", ""))
    above, below = (int(fraction[each] or fraction[f"{each}_braced"] or fraction[f"{each}_plain"]) for each in "ab")
    value = Fraction(above, below) if below else None
    return -value if value is not None and fraction["sign"] else value


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
