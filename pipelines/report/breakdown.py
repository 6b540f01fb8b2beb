"""Accuracy by something that answers differ in: a factor of the problem, or the length of what was written."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from markupsafe import Markup, escape

from eval.compare import Evaluated
from eval.summary import accuracy_of
from eval.trial import Trial
from pipelines.report import plots
from pipelines.report.plots import Bar

GROUPS = 6
"""Groups of lengths, of about equal size."""
MOST_VALUES = 40
"""Values of a factor that are shown, those of the most problems first; the page says how many are not."""

Cells = Mapping[str, Mapping[str, Any]]
"""Checkpoint -> estimate, in JSON values."""


@dataclass(frozen=True, slots=True)
class Breakdown:
    """`rows`: what the accuracy is of, and the estimates. `factor`: its key; None for lengths.

    `left_out`: values that are not shown. `unknown`: answers whose length is not known.
    """

    name: str
    labels: Sequence[str]
    rows: Sequence[tuple[str, Cells]]
    plot: Markup
    factor: str | None = None
    left_out: int = 0
    unknown: int = 0

    @property
    def heading(self) -> str:
        return f"By {self.name[0].lower()}{self.name[1:]}"

    @property
    def legend(self) -> Markup:
        """Which checkpoint is which in the plot."""
        if len(self.labels) == 1:
            return escape(self.labels[0])
        return Markup('<span class="key muted"></span> {}, <span class="key"></span> {}').format(*self.labels)


def by_factors(suite: str, shown: Sequence[Mapping[str, Any]]) -> list[Breakdown]:
    """One for each factor with two values or more. `shown`: checkpoints of `eval.json`."""
    keys = dict.fromkeys(key for each in shown for key in each["factors"])
    found = []
    for key in keys:
        factors = {each["label"]: each["factors"].get(key, {}) for each in shown}
        values = list(dict.fromkeys(value for each in factors.values() for value in each))
        if len(values) < 2:
            continue
        kept = set(sorted(values, key=lambda value: -_most(factors, value))[:MOST_VALUES])
        rows = [
            (value, {label: each[value] for label, each in factors.items() if value in each})
            for value in values
            if value in kept
        ]
        plot = _plot(rows, list(factors), f"Accuracy by {key} on {suite}")
        name = "Kind of question" if key == "kind" else key
        found.append(Breakdown(name, list(factors), rows, plot, key, len(values) - len(rows)))
    return found


def by_length(suite: str, results: Sequence[Evaluated]) -> Breakdown | None:
    """In groups of about equal size over all `results`, by the tokens of the completion; None where all are alike."""
    lengths = sorted(n for each in results for trial in each.trials if (n := trial.completion_tokens) is not None)
    if not lengths:
        return None
    ends = sorted({lengths[ceil(len(lengths) * group / GROUPS) - 1] for group in range(1, GROUPS + 1)})
    if len(ends) < 2:
        return None
    starts = [lengths[0], *(end + 1 for end in ends[:-1])]
    names = [f"{low}–{high}" if low < high else str(low) for low, high in zip(starts, ends, strict=True)]
    groups: dict[str, dict[str, list[Trial]]] = {name: {each.label: [] for each in results} for name in names}
    for each in results:
        for trial in each.trials:
            if trial.completion_tokens is not None:
                groups[names[bisect_left(ends, trial.completion_tokens)]][each.label].append(trial)
    rows = [
        (name, {label: asdict(accuracy_of(trials)) for label, trials in group.items() if trials})
        for name, group in groups.items()
    ]
    labels = [each.label for each in results]
    plot = _plot(rows, labels, f"Accuracy by length of the completion on {suite}")
    unknown = sum(len(each.trials) for each in results) - len(lengths)
    return Breakdown("Tokens of the answer", labels, rows, plot, unknown=unknown)


def _most(factors: Mapping[str, Cells], value: str) -> int:
    return max(int(each[value]["n"]) for each in factors.values() if value in each)


def _plot(rows: Sequence[tuple[str, Cells]], labels: Sequence[str], title: str) -> Markup:
    """Two checkpoints side by side, or one alone."""
    if len(labels) == 2:
        before, after = labels
        pairs = [(name, bar_of(before, cells.get(before)), bar_of(after, cells.get(after))) for name, cells in rows]
        words = f"{title}, {before} and {after}; the table has the numbers"
        return Markup(plots.paired_dots(pairs, words, "accuracy, %"))
    bars = [bar_of(name, cells.get(labels[0])) for name, cells in rows]
    return Markup(plots.forest(bars, f"{title}; the table has the numbers", "accuracy, %"))


def bar_of(label: str, estimate: Mapping[str, Any] | None, strong: bool = True) -> Bar:
    """An estimate of `eval.json` in percent."""
    value, low, high = (
        None if estimate is None or estimate[key] is None else 100 * estimate[key] for key in ("value", "low", "high")
    )
    return Bar(label, value, low, high, strong)


def bar_of_difference(label: str, comparison: Mapping[str, Any]) -> Bar:
    """A paired difference of `eval.json` in points, strong where its interval lies on one side of 0."""
    estimate = comparison["difference"]["estimate"]
    return bar_of(label, estimate, strong=estimate["low"] is not None and not estimate["low"] <= 0 <= estimate["high"])
