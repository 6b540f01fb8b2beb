"""What a checkpoint's trials add up to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eval.estimators import metrics_at, over_problems, pass_at_k, too_few
from eval.phases import PHASES, Phase, first_failures
from eval.protocol import NOTHING, Measure, Protocol, measures
from eval.stats import DRAWS, Estimate
from eval.tally import Group, Tally, by_answer, by_problem, tally
from eval.trial import Trial, count_outcomes
from rewards.normalise import normalise
from tasks.problem import Problem

WARN_UNGRADED = 0.01
WARN_TRUNCATED = 0.02
WARN_UNPARSED = 0.05
_UNPARSED = "compare the prompt, and the chat template, with those the model was trained on"
_UNPARSED_BY = {
    "latent": "early in its training a recurrent reasoner leaves cells empty; else see that the answers are grids, as "
    "its own are"
}
"""What else to say, by the engine's kind."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores are means over problems, of the share of a problem's graded trials that is right. Counts are of trials.

    `bounds`: the accuracy if all ungraded trials were wrong, and if all were right.
    """

    label: str
    trials: int
    problems: int
    samples: int
    """Trials that were asked for of each problem."""
    accuracy: Estimate
    """pass@1."""
    metrics: Mapping[str, Estimate]
    """`pass@k`, `pass^k`, `maj@k` and `consistency@k`, for each k that was asked for."""
    bounds: tuple[float, float]
    outcomes: Mapping[str, int]
    flexible: float | None
    """Accuracy under flexible extraction, None where that is known of too few problems; its gap to `accuracy` is the
    share of right answers in another form."""
    among_finished: float | None
    """Accuracy among trials that are not truncated; None where accuracy is."""
    token_limit: float
    """The share of trials that ended at the token limit, with a complete answer or without."""
    no_vote: int
    """Problems of which no graded trial has an answer: 0 in `maj@k`."""
    mean_tokens: float | None
    mean_seconds: float | None = field(compare=False)
    """Not compared: the same trials made twice are the same result."""
    phases: tuple[Phase, ...]
    """Where trials fail first."""
    kinds: Mapping[str, Estimate]
    """`factors["kind"]`."""
    factors: Mapping[str, Mapping[str, Estimate]]
    """Accuracy by each factor: key -> value -> over the trials that have it."""
    protocol: Sequence[Measure]
    """What the suite is reported by beside accuracy."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The score of the answer that is right most often, given to every question."""

    answer: str
    value: float


def summarise(
    trials: Sequence[Trial],
    *,
    ks: Sequence[int] = (),
    samples: int | None = None,
    group: Group = by_answer,
    phases: Sequence[str] = PHASES,
    protocol: Protocol = NOTHING,
    engine: str | None = None,
    draws: int = DRAWS,
) -> Summary:
    """The numbers of one checkpoint.

    Args:
        ks: the k of pass@k and its kin.
        samples: trials that were asked for of each problem; None: as many as the problem with the most has.
        group: which answers are equal, for maj@k.
        phases: their order, where trials have checks.
        protocol: the further numbers that are wanted.
        engine: the kind of what answered, by which a warning tells what to look at.

    Raises:
        ValueError: there are no trials, or they have several labels.
        TrialError: a trial occurs twice, a problem is in two clusters, or checks and phases contradict each other.
    """
    labels = {trial.label for trial in trials}
    if len(labels) != 1:
        raise ValueError(f"a summary is of one checkpoint, not of {sorted(labels)}")
    problems = by_problem(trials)
    tallies = [tally(each, group) for each in problems.values()]
    most = max(len(each) for each in problems.values())
    asked = most if samples is None else samples
    outcomes = count_outcomes(trials)
    graded = [trial for trial in trials if trial.outcome != "ungraded"]
    accuracy = accuracy_of(trials, draws=draws)
    metrics = {k: {"pass@1": accuracy} if k == 1 else metrics_at(tallies, k, draws=draws) for k in sorted(set(ks))}
    factors = _by_factor(trials, draws)
    finished = [trial.score or 0.0 for trial in graded if trial.outcome != "truncated"]
    among_finished = None if accuracy.value is None else _mean(finished)
    return Summary(
        label=labels.pop(),
        trials=len(trials),
        problems=len(problems),
        samples=asked,
        accuracy=accuracy,
        metrics={name: estimate for each in metrics.values() for name, estimate in each.items()},
        bounds=_bounds(problems, tallies),
        outcomes=outcomes,
        flexible=_flexible(problems),
        among_finished=among_finished,
        token_limit=sum(trial.finish == "length" for trial in trials) / len(trials),
        no_vote=sum(each.n > 0 and not each.votes for each in tallies),
        mean_tokens=_mean([trial.completion_tokens for trial in trials if trial.completion_tokens is not None]),
        mean_seconds=_mean([trial.seconds for trial in trials if trial.seconds is not None]),
        phases=first_failures(trials, phases),
        kinds=factors.get("kind", {}),
        factors=factors,
        protocol=measures(trials, protocol, draws=draws),
        warnings=(
            *_of_accuracy(accuracy),
            *_of_samples(problems, asked),
            *_of_metrics(metrics, accuracy),
            *_of_outcomes(outcomes, trials, accuracy, among_finished, _UNPARSED_BY.get(engine or "", _UNPARSED)),
        ),
    )


def accuracy_of(trials: Sequence[Trial], *, draws: int = DRAWS) -> Estimate:
    """pass@1: the share of a problem's graded trials that is right, over problems, with its interval by cluster."""
    tallies = [tally(each) for each in by_problem(trials).values()]
    needed = "trials could be graded" if len(tallies) == len(trials) else "problems have a graded trial"
    values = [pass_at_k(each, 1) for each in tallies]
    return over_problems(values, [each.cluster for each in tallies], needed, draws=draws)


def constant_baseline(problems: Sequence[Problem]) -> Baseline:
    """The best constant answer, by the gold answers; the first in alphabetical order among equals, empty where no
    problem tells one."""
    counts = Counter(normalise(problem.answer) for problem in problems if problem.answer)
    if not counts:
        return Baseline("", 0.0)
    answer = min(counts, key=lambda each: (-counts[each], each))
    return Baseline(answer, counts[answer] / len(problems))


def _by_factor(trials: Sequence[Trial], draws: int) -> dict[str, dict[str, Estimate]]:
    having: dict[str, dict[str, list[Trial]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        for key, value in trial.factors.items():
            having[key][value].append(trial)
    return {
        key: {value: accuracy_of(values[value], draws=draws) for value in sorted(values, key=_numbers_first)}
        for key, values in sorted(having.items())
    }


def _numbers_first(value: str) -> tuple[bool, float, str]:
    """Levels in the order of their numbers: 2 before 10."""
    return (False, float(value), value) if value.isdecimal() else (True, 0.0, value)


def _bounds(problems: Mapping[str, Sequence[Trial]], tallies: Sequence[Tally]) -> tuple[float, float]:
    made = [len(each) for each in problems.values()]
    low = [each.passes / n for each, n in zip(tallies, made, strict=True)]
    high = [(each.passes + n - each.n) / n for each, n in zip(tallies, made, strict=True)]
    return sum(low) / len(low), sum(high) / len(high)


def _flexible(problems: Mapping[str, Sequence[Trial]]) -> float | None:
    graded = [[score for trial in each if (score := trial.flexible_score) is not None] for each in problems.values()]
    known = [sum(scores) / len(scores) for scores in graded if scores]
    return None if too_few(len(known), len(problems), "") else _mean(known)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _of_accuracy(accuracy: Estimate) -> list[str]:
    return [] if accuracy.warning is None else [accuracy.warning]


def _of_samples(problems: Mapping[str, Sequence[Trial]], asked: int) -> list[str]:
    short = [len(each) for each in problems.values() if len(each) < asked]
    text = f"{len(short)} of {len(problems)} problems have fewer than the {asked} trials asked for"
    return [f"{text}; one has {min(short)}"] if short else []


def _of_metrics(metrics: Mapping[int, Mapping[str, Estimate]], accuracy: Estimate) -> list[str]:
    """One line for each k, since its metrics lack the same trials."""
    found = []
    for k, estimates in metrics.items():
        first = estimates[f"pass@{k}"]
        if first.value is None:
            found.append(f"k = {k}: {first.reason}")
        elif first.warning not in (None, accuracy.warning):
            found.append(f"k = {k}: {first.warning}")
    return found


def _of_outcomes(
    outcomes: Mapping[str, int],
    trials: Sequence[Trial],
    accuracy: Estimate,
    among_finished: float | None,
    unparsed: str,
) -> list[str]:
    both = ""
    if accuracy.value is not None and among_finished is not None:
        both = f" ({accuracy.value:.1%} are right overall, {among_finished:.1%} among the finished)"
    reasons = Counter(trial.reason for trial in trials if trial.outcome == "ungraded" and trial.reason)
    why = "".join(f"; most often: {reason}" for reason, _ in reasons.most_common(1))
    limits = {
        "ungraded": (WARN_UNGRADED, f"this is not a finished result{why}"),
        "truncated": (WARN_TRUNCATED, f"raise decoding.max_new_tokens{both}"),
        "unparsed": (WARN_UNPARSED, unparsed),
    }
    shares = {outcome: outcomes[outcome] / len(trials) for outcome in limits}
    return [f"{shares[name]:.1%} {name}: {advice}" for name, (limit, advice) in limits.items() if shares[name] > limit]
