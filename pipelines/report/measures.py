"""One evaluation in depth: what its `eval.json` says, and what its trials say beyond that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from eval.compare import Evaluated
from eval.estimators import LEAST_KNOWN, METRICS
from eval.power import power_of
from eval.stats import Difference, Estimate
from eval.tally import Tally, by_problem, group_of, tally
from pipelines.evaluation import Stored
from pipelines.report import plots
from pipelines.report.breakdown import Breakdown, bar_of, bar_of_difference, by_factors, by_length
from pipelines.report.plots import Line


@dataclass(frozen=True, slots=True)
class Measures:
    """What is shown of one evaluation.

    `key` is its stage's name, `title` that of its suite. `before` and `after` are the first and the last checkpoint
    outside arms; without an earlier one `before` is None. `metrics` are the names of those for k > 1.
    """

    key: str
    title: str
    result: Mapping[str, Any]
    results: Sequence[Evaluated]
    timing: Mapping[str, float | None]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    metrics: Sequence[str]
    curves: Markup | None
    breakdowns: Sequence[Breakdown]
    accuracy: Markup
    differences: Markup | None

    @property
    def shown(self) -> list[Mapping[str, Any]]:
        """The checkpoints that break-downs show."""
        return [each for each in (self.before, self.after) if each is not None]

    @property
    def change(self) -> Mapping[str, Any] | None:
        """The comparison of `after` with `before`."""
        if self.before is None or self.after is None:
            return None
        wanted = (self.after["label"], self.before["label"])
        return next((each for each in self.result["comparisons"] if (each["a"], each["b"]) == wanted), None)

    @property
    def again(self) -> bool:
        """Whether these are answers that another evaluation asked for, scored again."""
        return "rescored" in self.result["provenance"]

    @property
    def clustered(self) -> bool:
        """Whether problems come in clusters."""
        return any(each["accuracy"]["clusters"] != each["accuracy"]["n"] for each in self.result["checkpoints"])

    @property
    def clusters(self) -> str:
        """What they are."""
        pictured = any(trial.image for each in self.results for trial in each.trials[:1])
        return "images" if pictured else "clusters"

    @property
    def samples(self) -> int:
        """Answers to each problem."""
        return max((each["samples"] for each in self.result["checkpoints"]), default=1)

    @property
    def protocol(self) -> list[tuple[str, float, list[Mapping[str, Any]]]]:
        """What the benchmark is reported by: a name, its full mark, and each checkpoint's estimate in marks."""
        by_checkpoint = [each.get("protocol", ()) for each in self.result["checkpoints"]]
        return [
            (row[0]["name"], row[0]["full"], [_in_marks(each["estimate"], each["full"]) for each in row])
            for row in zip(*by_checkpoint, strict=True)
        ]

    @property
    def phases(self) -> list[str]:
        """Those that a trial may fail in, in order."""
        names = (phase["name"] for each in self.result["checkpoints"] for phase in each["phases"])
        return list(dict.fromkeys(names))

    @property
    def repeated(self) -> bool:
        """Whether any answer is right more than once: of puzzles, each has its own, and a constant says nothing."""
        return _repeated(self.result)


def _in_marks(estimate: Mapping[str, Any], full: float) -> Mapping[str, Any]:
    known = {key: full * estimate[key] for key in ("value", "low", "high") if estimate[key] is not None}
    return {**estimate, **known}


def measure_all(evaluations: Sequence[Stored]) -> list[Measures]:
    """Reads the trials of evaluations and draws what is shown of each. Raises `TrialError`."""
    titles = [title_of(each) for each in evaluations]
    # A suite may be evaluated twice, with another number of answers: then the stage tells them apart.
    return [
        _measure(each, title if titles.count(title) == 1 else f"{title} ({each.name})")
        for each, title in zip(evaluations, titles, strict=True)
    ]


def _measure(stored: Stored, title: str) -> Measures:
    result = stored.result
    results = stored.evaluated()
    main = [each for each in result["checkpoints"] if each["arm"] is None] or list(result["checkpoints"])
    before, after = (main[0], main[-1]) if len(main) > 1 else (None, main[0] if main else None)
    shown = [each for each in (before, after) if each]
    labels = {each["label"] for each in shown}
    lengths = by_length(title, [each for each in results if each.label in labels])
    ks = [k for k in result["ks"] if k > 1]
    return Measures(
        key=stored.name,
        title=title,
        result=result,
        results=results,
        timing=stored.timing,
        before=before,
        after=after,
        metrics=[f"{name}{k}" for k in ks for name in (*METRICS, "consistency@")],
        curves=_curves(title, result, results, after["label"] if after else None),
        breakdowns=[*by_factors(title, shown), *([lengths] if lengths else [])],
        accuracy=Markup(_accuracy(title, result, after)),
        differences=_differences(title, result["comparisons"]),
    )


def _differences(title: str, comparisons: Sequence[Mapping[str, Any]]) -> Markup | None:
    if not comparisons:
        return None
    bars = [bar_of_difference(f"{each['a']} − {each['b']}", each) for each in comparisons]
    return Markup(plots.forest(bars, f"Paired differences on {title}", "points", reference=(0.0, "the same")))


def title_of(stored: Stored) -> str:
    """The suite's name; for answers that were scored again, with what scored them."""
    suite = stored.result["suite"]
    if "rescored" not in stored.result["provenance"]:
        return str(suite["name"])
    reward = suite["reward"]["name"].rpartition("/")[2]  # of a reward in a file, the file's name
    return f"{suite['name']}, scored again ({reward}, {suite['extraction']['strict']})"


def power_line(comparison: Mapping[str, Any]) -> str:
    """What a comparison of `eval.json` can show, in a line."""
    difference = comparison["difference"]
    return power_of(Difference(**{**difference, "estimate": Estimate(**difference["estimate"])})).line


def _curves(title: str, result: Mapping[str, Any], results: Sequence[Evaluated], last: str | None) -> Markup | None:
    """pass@k of each checkpoint, of one alone also pass^k and maj@k; the intervals are those of `eval.json`."""
    alone = len(results) == 1
    group = group_of(result["suite"]["reward"].get("name"))
    drawn = []
    for each, shown in zip(results, result["checkpoints"], strict=True):
        tallies = [tally(trials, group) for trials in by_problem(each.trials).values()]
        for name in METRICS if alone else ("pass@",):
            values = [100 * value for value in metric_curve(name, tallies)]
            known = {k: bar_of(name, shown["metrics"].get(f"{name}{k}")) for k in result["ks"] if k <= len(values)}
            line = Line(f"{name}k" if alone else each.label, range(1, len(values) + 1), values, known)
            if len(values) > 1:
                drawn.append(line)
    if not drawn:
        return None
    drawn.sort(key=lambda line: line.label != last)  # The first is in the accent colour.
    what = "pass@k, pass^k and maj@k" if alone else "pass@k"
    return Markup(plots.lines(drawn, f"{what} on {title}; the table has the numbers", "k", "%"))


def metric_curve(name: str, tallies: Sequence[Tally]) -> list[float]:
    """The metric at k = 1, 2, … as far as it is known of as many problems as a result takes."""
    found: list[float] = []
    while True:
        values = [value for each in tallies if (value := METRICS[name](each, len(found) + 1)) is not None]
        if not values or len(values) < LEAST_KNOWN * len(tallies):
            return found
        found.append(float(sum(values) / len(values)))


def _repeated(result: Mapping[str, Any]) -> bool:
    return bool(result["baseline"]["value"] * result["problems"]["used"] > 1.5)


def _accuracy(title: str, result: Mapping[str, Any], after: Mapping[str, Any] | None) -> str:
    baseline = result["baseline"]
    bars = [
        bar_of(each["label"], each["accuracy"], strong=after is not None and each["label"] == after["label"])
        for each in result["checkpoints"]
    ]
    lows = [bar.low or bar.value for bar in bars if bar.value is not None]
    # A baseline far below would squeeze the intervals that the plot is there to show.
    near = _repeated(result) and bool(lows) and min(lows) - 100 * baseline["value"] < 25
    reference = (100 * baseline["value"], f"always “{baseline['answer']}”") if near else None
    values = ", ".join(f"{bar.label} {bar.value:.1f} %" for bar in bars if bar.value is not None)
    return plots.forest(bars, f"Accuracy on {title}: {values}", "accuracy, %", reference=reference)
