"""Numbers beside accuracy that a benchmark is reported by: F1 of the yes answers, points for pairs of questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from eval.estimators import mark_partial, too_few
from eval.stats import DRAWS, Estimate, Floats, clopper_pearson, function_interval
from eval.tally import by_problem
from eval.trial import Trial
from rewards.normalise import normalise

PERCENT = 100.0
POINTS_A_KIND = 200.0
"""Of a kind of questions: 100 for its accuracy and 100 for the share of its pairs with both answers right."""


class Protocol(BaseModel):
    """Which of these a suite is reported by."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    yes_no: bool = Field(False, description="F1, precision and recall of `yes`, and its share; means over the kinds")
    points: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="a name, and the kinds whose points are added up under it"
    )


NOTHING = Protocol()
"""Of a suite that is reported by accuracy alone."""


@dataclass(frozen=True, slots=True)
class Measure:
    """`estimate` is a share of `full`: 100 for percent, else the most points that there are."""

    name: str
    estimate: Estimate
    full: float


def measures(trials: Sequence[Trial], protocol: Protocol, *, draws: int = DRAWS) -> list[Measure]:
    """What one checkpoint's trials add up to under the protocol; intervals by cluster.

    Ungraded trials are left out. All kinds weigh the same, so there is no value where too few problems of one of them
    have a graded trial.
    """
    found = _yes_no(trials, draws) if protocol.yes_no else []
    return found + [_points(name, kinds, trials, draws) for name, kinds in protocol.points.items()]


def _kind(trial: Trial) -> str:
    return trial.factors.get("kind", "")


def _graded(trials: Sequence[Trial], kinds: Sequence[str]) -> tuple[list[Trial], int, str | None]:
    """The graded ones, how many problems there are in all, and why a measure of these kinds is not known."""
    graded = [trial for trial in trials if trial.outcome != "ungraded"]
    known, asked = ({kind: set[str]() for kind in kinds} for _ in range(2))
    for found, some in ((known, graded), (asked, trials)):
        for trial in some:
            found[_kind(trial)].add(trial.problem_id)
    reasons = (
        too_few(len(known[kind]), len(asked[kind]), f"problems{f' of {kind}' * bool(kind)} have a graded trial")
        for kind in kinds
    )
    return graded, sum(map(len, asked.values())), next(filter(None, reasons), None)


def _unknown(reason: str | None) -> Estimate:
    return Estimate(None, None, None, None, 0, 0, None, reason=reason)


def _yes_no(trials: Sequence[Trial], draws: int) -> list[Measure]:
    """As POPE reports it (arXiv 2305.10355), `yes` being the positive class, but that an answer that is neither yes nor
    no is neither: POPE's script takes all without a "no" for a yes."""
    kinds = sorted(set(map(_kind, trials)))
    graded, total, unknown = _graded(trials, kinds)
    rows, clusters = [], []
    for each in by_problem(graded).values():
        row = np.zeros((len(kinds), 4))
        for trial in each:
            said = normalise(trial.answer or "") == "yes"
            true = normalise(trial.gold or "") == "yes"
            row[kinds.index(_kind(trial))] += np.array([said and true, said, true, 1]) / len(each)
        rows.append(row)
        clusters.append(each[0].cluster)

    shares: dict[str, tuple[Callable[[Floats], Floats], str]] = {
        "F1": (lambda m: 2 * m[..., 0] / (m[..., 1] + m[..., 2]), "a kind has no yes, neither said nor true"),
        "precision": (lambda m: m[..., 0] / m[..., 1], "yes was never said to a kind"),
        "recall": (lambda m: m[..., 0] / m[..., 2], "yes is never true of a kind"),
        "yes": (lambda m: m[..., 1] / m[..., 3], "a kind has no trial"),
    }
    if unknown:
        return [Measure(name, _unknown(unknown), PERCENT) for name in shares]
    table = np.reshape(rows, (len(rows), len(kinds), 4))
    return [
        Measure(name, mark_partial(_over_kinds(table, clusters, share, undefined, draws), total), PERCENT)
        for name, (share, undefined) in shares.items()
    ]


def _points(name: str, kinds: Sequence[str], trials: Sequence[Trial], draws: int) -> Measure:
    """MME's points (arXiv 2306.13394): for each kind, accuracy and the share of clusters (an image's questions) that
    are right throughout, in percent, added up. Each sample is a pass over the questions of its own, and one with an
    ungraded answer is no pass that could be right throughout."""
    full = POINTS_A_KIND * len(kinds)
    asked = [trial for trial in trials if _kind(trial) in kinds]
    if missing := [kind for kind in kinds if kind not in set(map(_kind, asked))]:
        return Measure(name, _unknown(f"not asked: {', '.join(missing)}"), full)
    _, _, unknown = _graded(asked, kinds)
    if unknown:
        return Measure(name, _unknown(unknown), full)
    sheets: dict[tuple[str, str], dict[int, list[bool | None]]] = defaultdict(lambda: defaultdict(list))
    for trial in asked:
        right = None if trial.outcome == "ungraded" else trial.outcome == "correct"
        sheets[_kind(trial), trial.cluster][trial.sample].append(right)
    table = np.zeros((len(sheets), len(kinds), 4))
    for row, ((kind, _), samples) in enumerate(sheets.items()):
        answers = [right for each in samples.values() for right in each if right is not None]
        whole = [all(each) for each in samples.values() if None not in each]
        table[row, kinds.index(kind)] = sum(answers), len(answers), sum(whole), len(whole)

    estimate = _over_kinds(
        table,
        [cluster for _, cluster in sheets],
        lambda m: (m[..., 0] / m[..., 1] + m[..., 2] / m[..., 3]) / 2,
        "a kind has no cluster without an ungraded trial",
        draws,
    )
    return Measure(name, estimate, full)


def _over_kinds(
    table: Floats, clusters: Sequence[str], share: Callable[[Floats], Floats], undefined: str, draws: int
) -> Estimate:
    """The mean over kinds of a share, `share` of the means [D, kinds, F] of a table [N, kinds, F]."""

    def by_kind(means: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = share(means.reshape(-1, *table.shape[1:]))
        return found

    def exact(flat: Estimate) -> Estimate:
        """Of each kind Clopper–Pearson over the clusters that have the share, then the mean: kinds share images."""
        codes = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
        sums = np.zeros((len(codes), *table.shape[1:]))
        np.add.at(sums, [codes[cluster] for cluster in clusters], table)
        counts = np.isfinite(by_kind(sums)).sum(0)
        values = by_kind(table.mean(0))[0]
        ends = [clopper_pearson(value * n, n) for value, n in zip(values.tolist(), counts.tolist(), strict=True)]
        low, high = np.mean(ends, 0).tolist()
        return replace(flat, low=low, high=high, method="Clopper-Pearson over clusters")

    columns = table.reshape(len(table), -1)
    return function_interval(columns, clusters, lambda m: by_kind(m).mean(1), undefined, alike=exact, draws=draws)


def read_protocol(settings: Mapping[str, Any]) -> Protocol:
    """The protocol in a suite's stored settings, which have none where a suite has none."""
    return Protocol.model_validate(settings.get("protocol", {}))
