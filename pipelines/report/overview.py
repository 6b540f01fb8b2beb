"""Several suites at a glance: a table of suites by checkpoints, and what changed on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from eval.stats import LEVEL, holm
from eval.suite_file import Published, SuiteError
from pipelines.report import plots
from pipelines.report.breakdown import bar_of_difference
from pipelines.report.measures import Measures
from pipelines.report.plots import Bar
from pipelines.report.run import RunView


@dataclass(frozen=True, slots=True)
class Row:
    """A suite. `cells`: what `eval.json` says of each checkpoint of the run; None where it was not asked."""

    measures: Measures
    cells: Sequence[Mapping[str, Any] | None]
    published: Published | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A comparison on a suite. `p`: adjusted after Holm for all comparisons on all suites."""

    measures: Measures
    comparison: Mapping[str, Any]
    p: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """`plots`: the two checkpoints that are compared, and their difference on each suite."""

    checkpoints: Sequence[str]
    rows: Sequence[Row]
    pairs: Sequence[Pair]
    plots: Sequence[tuple[str, Markup]]

    @property
    def published(self) -> bool:
        """Whether any suite names a figure."""
        return any(row.published for row in self.rows)

    @property
    def asked(self) -> list[Row]:
        """The suites without those whose answers were scored again."""
        return [row for row in self.rows if not row.measures.again]

    @property
    def answers(self) -> int:
        return sum(each["trials"] for row in self.asked for each in row.cells if each)

    @property
    def problems(self) -> int:
        return sum(row.measures.result["problems"]["used"] for row in self.asked)

    @property
    def tested(self) -> int:
        """Comparisons that have a p."""
        return sum(pair.p is not None for pair in self.pairs)

    @property
    def clear(self) -> int:
        """Comparisons whose adjusted p is below the level of the intervals."""
        return sum(pair.p is not None and pair.p < 1 - LEVEL for pair in self.pairs)


def overview(run: RunView, measured: Sequence[Measures]) -> Overview:
    """All evaluations of a run, in its order."""
    labels = list(dict.fromkeys(each["label"] for suite in measured for each in suite.result["checkpoints"]))
    rows = []
    for suite in measured:
        found = {each["label"]: each for each in suite.result["checkpoints"]}
        rows.append(Row(suite, [found.get(label) for label in labels], published_for(run, suite)))
    # Answers that are graded once more are no further evidence, which the others' p would have to share with.
    compared = [(suite, each) for suite in measured if not suite.again for each in suite.result["comparisons"]]
    adjusted = holm([each["difference"]["p"] for _, each in compared])
    pairs = [Pair(suite, each, p) for (suite, each), p in zip(compared, adjusted, strict=True)]
    return Overview(labels, rows, pairs, _plots(pairs))


def published_for(run: RunView, suite: Measures) -> Published | None:
    """The figure that the suite's file names, if that is still the file that was evaluated."""
    from eval.registry import find

    if suite.again:
        return None
    manifest = next(stage.manifest for stage in run.stages if stage.name == suite.key)
    settings = manifest.source.get("settings", {})
    reference = settings.get("suite")
    if reference is None or settings.get("overrides"):
        return None
    try:
        file = find(reference)
    except SuiteError:
        return None
    return file.published if file.digest == manifest.source["versions"].get("suite") else None


def _plots(pairs: Sequence[Pair]) -> list[tuple[str, Markup]]:
    groups: dict[tuple[str, str], list[Bar]] = {}
    for pair in pairs:
        each = pair.comparison
        groups.setdefault((each["a"], each["b"]), []).append(bar_of_difference(pair.measures.title, each))
    drawn = []
    for (a, b), bars in groups.items():
        title = f"Paired difference of {a} to {b} on each suite; the table has the numbers"
        drawn.append((f"{a} − {b}", Markup(plots.forest(bars, title, "points", reference=(0.0, b)))))
    return drawn
