"""Grading: from a completion to its verdict. Nothing of a model is needed, so saved trials can be graded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from threading import Lock

from eval.extract import Extraction, extract
from eval.suite import Suite
from eval.trial import Check, Extract, Outcome, Rewards, Score
from rewards.contract import INVALID, Reward, RewardError, columns_of, raising_row, score
from tasks.problem import Problem, column_names


@dataclass(frozen=True, slots=True)
class Grader:
    """The reward that decides, and those that are only shown, by name."""

    reward: Reward
    also: Mapping[str, Reward]
    one_at_a_time: Lock = field(default_factory=Lock, compare=False)
    """Rewards are written for one thread; several evaluations may grade at once."""

    @classmethod
    def of(cls, suite: Suite) -> Grader:
        """The rewards that a suite names. Raises `RewardError`."""
        return cls(suite.load(suite.reward), {name: suite.load(name) for name in suite.also})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What grading adds to a completion: fields of `Trial`."""

    extract: Extract
    reward: Rewards
    outcome: Outcome
    reason: str | None
    scores: dict[str, Score]
    checks: tuple[Check, ...]


def grade(
    suite: Suite,
    grader: Grader,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[Mapping[str, str]]],
    completions: Sequence[str],
    finishes: Sequence[str],
) -> list[Verdict]:
    """Extracts and grades completions that are there already: nothing of a model is needed."""
    extractions = [
        extract(text, problem.answer, suite.forms, _labels(problem), cut=stop == "length")
        for text, problem, stop in zip(completions, problems, finishes, strict=True)
    ]
    strict_answers = [
        None if stop == "error" else each.strict for each, stop in zip(extractions, finishes, strict=True)
    ]
    strict = _scores(strict_answers, problems, prompts, grader.reward)
    # Most often both extractions find one text, which is graded once.
    other = [
        None if stop == "error" or each.flexible == each.strict else each.flexible
        for each, stop in zip(extractions, finishes, strict=True)
    ]
    flexible = _scores(other, problems, prompts, grader.reward)
    further = {name: _scores(strict_answers, problems, prompts, each) for name, each in grader.also.items()}
    verdicts = []
    for row, extraction in enumerate(extractions):
        same = extraction.flexible == extraction.strict
        outcome, reason = _outcome(finishes[row], extraction, *strict[row])
        verdicts.append(
            Verdict(
                extract=Extract(strict=extraction.strict, flexible=extraction.flexible),
                reward=_rewards(strict[row], strict[row] if same else flexible[row], other[row] is not None),
                outcome=outcome,
                reason=reason,
                scores={name: Score(value=each[row][0], state=each[row][1]) for name, each in further.items()},
                checks=_checks(outcome, strict[row][1]),
            )
        )
    return verdicts


def refused_golds(problems: Sequence[Problem], reward: Reward, every: bool = False) -> list[tuple[str, str]]:
    """(problem, why) for each gold answer that its own reward scores below 1, or cannot score: it could never be right.

    A reward that reads no gold answer (of form, of length) has nothing to accept. One that goes by other columns alone
    (a puzzle's) is asked where `every` is set: a suite's gold answers are solutions, those of a table may be a hint.
    Problems whose data tell no answer (`untold`) are passed over.
    """
    wanted = columns_of(reward)
    if not wanted or ("answer" not in wanted and not every):
        return []
    problems = [problem for problem in problems if problem.answer]
    found = _scores([problem.answer for problem in problems], problems, [()] * len(problems), reward)
    return [
        (problem.id, note or ("no score" if value is None else f"score {value:g}"))
        for problem, (value, note) in zip(problems, found, strict=True)
        if value is None or value < 1
    ]


def untold(problems: Sequence[Problem]) -> str | None:
    """A line on problems of which the data tell no gold answer to check their reward by; None where there are none."""
    number = sum(not problem.answer for problem in problems)
    return f"{number} of {len(problems)} problems tell no gold answer: their reward alone grades" if number else None


def _rewards(
    strict: tuple[float | None, str | None], flexible: tuple[float | None, str | None], graded: bool
) -> Rewards:
    """`graded`: whether the flexible answer is another one, which was graded by itself."""
    state = (flexible[1] or "no score") if graded and flexible[0] is None else None
    return Rewards(strict=strict[0], flexible=flexible[0], flexible_state=state)


def _labels(problem: Problem) -> str:
    """The letters of a multiple-choice problem's options; empty for others."""
    return ascii_uppercase[: len(problem.columns.get("choices") or ())]


def _scores(
    answers: Sequence[str | None],
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[Mapping[str, str]]],
    reward: Reward,
) -> list[tuple[float | None, str | None]]:
    """The reward of each extracted answer, and the note on it; (None, None) where there was none to grade."""
    rows = [row for row, answer in enumerate(answers) if answer is not None]
    graded: list[tuple[float | None, str | None]] = [(None, None)] * len(answers)
    if not rows:
        return graded
    columns = reward_columns([problems[row] for row in rows], column_names(problems))
    asked, said = [prompts[row] for row in rows], [answers[row] for row in rows]
    try:
        scores = score(reward, asked, said, **columns)
    except RewardError as error:
        if error.__cause__ is None:
            raise
        place = raising_row(reward, asked, said, columns)
        if place is None:
            raise
        raise RewardError(f"{error} (problem {problems[rows[place]].id})") from error
    for place, row in enumerate(rows):
        graded[row] = scores.values[place], scores.notes.get(place)
    return graded


def reward_columns(problems: Sequence[Problem], names: Sequence[str]) -> dict[str, list[object]]:
    """What a reward is called with beside prompts and completions, one value for each problem."""
    return {
        "answer": [problem.answer for problem in problems],
        "question": [problem.question for problem in problems],
        "kind": [problem.kind for problem in problems],
        "image": [problem.image for problem in problems],
        **{name: [problem.columns.get(name) for problem in problems] for name in names},
    }


def _outcome(finish: str, extraction: Extraction, reward: float | None, note: str | None) -> tuple[Outcome, str | None]:
    if finish == "error":
        return "ungraded", "error"
    if extraction.unfinished:
        return "truncated", None
    if extraction.strict is None or note == "unparsed":
        return "unparsed", None
    if reward is None:
        return "ungraded", f"the reward gave no score: {note}" if note else "the reward gave no score"
    return ("correct" if reward >= 1 else "wrong"), None


def _checks(outcome: Outcome, note: str | None) -> tuple[Check, ...]:
    """The phases that an answer went through; `valid` is known of the right ones, and where a reward notes it."""
    if outcome == "ungraded":
        return ()
    phases: list[tuple[str, bool | None]] = [("finished", outcome != "truncated")]
    if outcome != "truncated":
        phases.append(("parsed", outcome != "unparsed"))
    if outcome in ("correct", "wrong"):
        phases.append(("valid", True if outcome == "correct" else False if note == INVALID else None))
        if note != INVALID:
            phases.append(("correct", outcome == "correct"))
    states = {True: "pass", False: "fail", None: "na"}
    return tuple(Check.model_validate({"name": name, "phase": name, "verdict": states[ok]}) for name, ok in phases)
