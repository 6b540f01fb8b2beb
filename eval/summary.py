"""What a checkpoint's trials add up to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.stats import DRAWS, Estimate, mean_interval
from eval.trial import Trial, count_outcomes
from rewards.normalise import normalise
from tasks.problem import Problem

MOST_UNGRADED = 0.05
"""Above this share of ungraded trials there is no score."""
WARN_UNGRADED = 0.01
WARN_TRUNCATED = 0.02
WARN_UNPARSED = 0.05


@dataclass(frozen=True, slots=True)
class Summary:
    """`bounds`: the accuracy if all ungraded trials were wrong, and if all were right."""

    label: str
    trials: int
    accuracy: Estimate
    bounds: tuple[float, float] | None
    outcomes: Mapping[str, int]
    flexible: float | None
    """Accuracy under flexible extraction; its gap to `accuracy` is the share of right answers in another form."""
    among_finished: float | None
    """Accuracy among trials that did not hit the token limit."""
    mean_tokens: float | None
    kinds: Mapping[str, Estimate]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The score of the answer that is right most often, given to every question."""

    answer: str
    value: float


def summarise(trials: Sequence[Trial], *, draws: int = DRAWS) -> Summary:
    """The numbers of one checkpoint. Raises `ValueError` when there are none, or when they have several labels."""
    labels = {trial.label for trial in trials}
    if len(labels) != 1:
        raise ValueError(f"a summary is of one checkpoint, not of {sorted(labels)}")
    outcomes = count_outcomes(trials)
    kinds: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if "kind" in trial.factors:
            kinds[trial.factors["kind"]].append(trial)
    graded = [trial for trial in trials if trial.outcome != "ungraded"]
    finished = [trial.score or 0.0 for trial in graded if trial.outcome != "truncated"]
    tokens = [trial.completion_tokens for trial in trials if trial.completion_tokens is not None]
    accuracy = accuracy_of(trials, draws=draws)
    return Summary(
        label=labels.pop(),
        trials=len(trials),
        accuracy=accuracy,
        bounds=(outcomes["correct"] / len(trials), (outcomes["correct"] + outcomes["ungraded"]) / len(trials)),
        outcomes=outcomes,
        flexible=_mean([trial.flexible_score or 0.0 for trial in graded]),
        among_finished=_mean(finished),
        mean_tokens=_mean(tokens),
        kinds={kind: accuracy_of(kinds[kind], draws=draws) for kind in sorted(kinds)},
        warnings=tuple(_warnings(outcomes, len(trials), accuracy)),
    )


def accuracy_of(trials: Sequence[Trial], *, draws: int = DRAWS) -> Estimate:
    """The share of correct trials among the graded ones, with its interval by cluster."""
    graded = [trial for trial in trials if trial.outcome != "ungraded"]
    if len(graded) < (1 - MOST_UNGRADED) * len(trials):
        reason = f"only {len(graded)} of {len(trials)} trials could be graded"
        return Estimate(None, None, None, None, len(graded), len({t.cluster for t in graded}), None, reason=reason)
    return mean_interval([trial.score or 0.0 for trial in graded], [trial.cluster for trial in graded], draws=draws)


def constant_baseline(problems: Sequence[Problem]) -> Baseline:
    """The best constant answer, by the gold answers; the first in alphabetical order among equals."""
    counts = Counter(normalise(problem.answer) for problem in problems)
    answer = min(counts, key=lambda each: (-counts[each], each))
    return Baseline(answer, counts[answer] / len(problems))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _warnings(outcomes: Mapping[str, int], total: int, accuracy: Estimate) -> list[str]:
    found = [] if accuracy.warning is None else [accuracy.warning]
    limits = {
        "ungraded": (WARN_UNGRADED, "this is not a finished result"),
        "truncated": (WARN_TRUNCATED, "raise decoding.max_new_tokens"),
        "unparsed": (WARN_UNPARSED, "compare the prompt, and the chat template, with those the model was trained on"),
    }
    for outcome, (limit, advice) in limits.items():
        if (share := outcomes[outcome] / total) > limit:
            found.append(f"{share:.1%} {outcome}: {advice}")
    return found
