"""The page of one run."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipelines.report import format, plots
from pipelines.report.plots import Bar
from pipelines.report.refinement import read_refinement
from pipelines.report.run import RunView, StageView
from pipelines.report.triads import Audit, FilterMeans, Row, Triads, filter_means, read_triads
from pipelines.stages.filter import COMBINED, SCORE_PREFIX

GALLERY = 9
"""Triads of each sort that are shown."""
MOST_SCORES = 4
"""Score columns that are drawn, the one that selected first; the audit's table keeps all."""


def render_run(run: RunView) -> str:
    """The whole HTML page."""
    evaluation = run.evaluation
    main = _main_line(evaluation)
    before, after = (main[0], main[-1]) if len(main) > 1 else (None, main[0] if main else None)
    shown = [each for each in (before, after) if each]
    kinds = sorted(shown[0]["kinds"]) if shown else []
    chosen = _filter_stage(run)
    triads = read_triads(chosen.directory) if chosen else None
    score = _selecting_score(chosen, triads) if chosen and triads else None
    drawn = sorted(triads.scores, key=lambda name: name != score)[:MOST_SCORES] if triads else []
    audit = triads.audit if triads else None
    return render(
        "run.html.j2",
        title=run.name,
        run=run,
        trained=bool(run.of_kind("update")),
        evaluation=evaluation,
        repeated=evaluation is not None and _repeats(evaluation),
        before=before,
        after=after,
        change=_comparison(evaluation, after, before),
        shown=shown,
        kinds=kinds,
        kinds_note=_kinds_note(shown),
        scores_note=Markup('<span class="key box"></span> kept, <span class="key line"></span> dropped'),
        triads=triads,
        proposed=_proposed(run, chosen) if chosen and triads else 0,
        filters=_filters(run),
        audit=audit,
        dropped=_dropped(run.stages),
        gallery=_gallery(triads, score),
        refinement=read_refinement(run.stages),
        plots={
            "accuracy": Markup(_accuracy_plot(evaluation, after)) if evaluation else None,
            "kinds": Markup(_kinds_plot(before, after, kinds)) if before and after and kinds else None,
            "scores": _score_plots(triads, drawn) if triads else [],
            "truth": _truth_plots(triads, audit, drawn) if triads and audit else [],
        },
    )


def render(template: str, **values: Any) -> str:
    """Fills a template. Everything that is not `Markup` is escaped; a name that is missing is an error."""
    return str(_environment().get_template(template).render(style=Markup(_style()), **values))


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pipelines.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("percent", "points", "interval", "interval_points", "count", "decimal", "p_value", "duration", "number")
    environment.filters.update({name: getattr(format, name) for name in names})
    environment.filters["asdict"] = asdict
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return environment


def _style() -> str:
    return Path(__file__).with_name("templates").joinpath("style.css").read_text(encoding="utf-8")


def _main_line(evaluation: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The checkpoints outside arms, in order."""
    return [each for each in evaluation["checkpoints"] if each["arm"] is None] if evaluation else []


def _comparison(
    evaluation: Mapping[str, Any] | None, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    if evaluation is None or a is None or b is None:
        return None
    pairs = (each for each in evaluation["comparisons"] if (each["a"], each["b"]) == (a["label"], b["label"]))
    return next(pairs, None)


def _filter_stage(run: RunView) -> StageView | None:
    """The last filter of the shared chain; an arm's where there is no other."""
    filters = run.of_kind("filter")
    return next((stage for stage in reversed(filters) if stage.arm is None), filters[-1] if filters else None)


def _filters(run: RunView) -> list[FilterMeans]:
    read = ((stage.name, read_triads(stage.directory)) for stage in run.of_kind("filter"))
    return [filter_means(name, [triads]) for name, triads in read if triads is not None]


def _accuracy_plot(evaluation: Mapping[str, Any], after: Mapping[str, Any] | None) -> str:
    baseline = evaluation["baseline"]
    bars = [
        _bar(each["label"], each["accuracy"], strong=after is not None and each["label"] == after["label"])
        for each in evaluation["checkpoints"]
    ]
    lows = [bar.low or bar.value for bar in bars if bar.value is not None]
    # A baseline far below would squeeze the intervals that the plot is there to show.
    near = _repeats(evaluation) and bool(lows) and min(lows) - 100 * baseline["value"] < 25
    reference = (100 * baseline["value"], f"always “{baseline['answer']}”") if near else None
    values = ", ".join(f"{bar.label} {bar.value:.1f} %" for bar in bars if bar.value is not None)
    return plots.forest(bars, f"Accuracy per checkpoint: {values}", "accuracy, %", reference=reference)


def _repeats(evaluation: Mapping[str, Any]) -> bool:
    """Whether any answer is right more than once: of puzzles, each has its own, and a constant says nothing."""
    return bool(evaluation["baseline"]["value"] * evaluation["problems"]["used"] > 1.5)


def _kinds_plot(before: Mapping[str, Any], after: Mapping[str, Any], kinds: Sequence[str]) -> str:
    rows = [(kind, _bar(kind, before["kinds"][kind]), _bar(kind, after["kinds"][kind])) for kind in kinds]
    title = f"Accuracy by kind of question, {before['label']} and {after['label']}; the table below has the numbers"
    return plots.paired_dots(rows, title, "accuracy, %")


def _kinds_note(shown: Sequence[Mapping[str, Any]]) -> Markup:
    keys = ('<span class="key muted"></span> {}', '<span class="key"></span> {}')
    return Markup(", ").join(Markup(key).format(each["label"]) for key, each in zip(keys, shown, strict=False))


def _score_plots(triads: Triads, scores: Sequence[str]) -> list[tuple[str, Markup]]:
    drawn = []
    for score in scores:
        kept, dropped = triads.values(score, True), triads.values(score, False)
        title = f"Distribution of the score {score} among {len(kept)} kept and {len(dropped)} dropped pairs"
        drawn.append((score, Markup(plots.histogram(kept, dropped, title, score))))
    return drawn


def _truth_plots(triads: Triads, audit: Audit, scores: Sequence[str]) -> list[tuple[str, Markup]]:
    known = audit.kept.known + audit.dropped.known
    base = 100 * (audit.kept.right + audit.dropped.right) / known
    drawn = []
    for score in scores:
        bins = []
        for mean, share in triads.truth_by_score(score):
            low, high = share.interval or (0.0, 1.0)
            bins.append(Bar(f"{mean:.2f}", 100 * (share.value or 0.0), 100 * low, 100 * high))
        if len(bins) > 1:
            title = f"Share of right pairs by the score {score}, from {bins[0].value:.0f} % to {bins[-1].value:.0f} %"
            drawn.append((score, Markup(plots.calibration(bins, base, title, f"mean {score} of the group"))))
    return drawn


def _bar(label: str, estimate: Mapping[str, Any], strong: bool = True) -> Bar:
    value, low, high = (
        None if each is None else 100 * each for each in (estimate[key] for key in ("value", "low", "high"))
    )
    return Bar(label, value, low, high, strong)


def _dropped(stages: Sequence[StageView]) -> list[tuple[str, str, int, float | None]]:
    """(stage, reason, rows, share of the rows in)."""
    return [
        (stage.name, reason, rows, rows / stage.manifest.rows_in if stage.manifest.rows_in else None)
        for stage in stages
        for reason, rows in sorted(stage.manifest.dropped.items(), key=lambda item: (-item[1], item[0]))
        if rows
    ]


def _proposed(run: RunView, chosen: StageView) -> int:
    """The pairs that were written, unusable ones among them, for the filter that is shown."""
    made = [stage for stage in run.of_kind("generate") if stage.name in chosen.manifest.inputs]
    return sum(stage.manifest.rows_in or 0 for stage in made)


def _selecting_score(stage: StageView, triads: Triads) -> str | None:
    """The score that the stage selected by, as far as it is a column; else the first column."""
    named = stage.manifest.source.get("settings", {}).get("select", {}).get("score")
    for name in [named] if isinstance(named, str) else [COMBINED, *(named or ())]:
        if name in triads.scores:
            return str(name)
    return triads.scores[0] if triads.scores else None


def _gallery(triads: Triads | None, score: str | None) -> list[tuple[Markup, list[dict[str, Any]]]]:
    if triads is None:
        return []
    found = []
    for heading, kept in (("Kept", True), ("Dropped", False)):
        if rows := triads.gallery(kept, GALLERY, score):
            total = len(triads.kept if kept else triads.dropped)
            ranked = f", by {score}, taking turns over {'types' if kept else 'reasons'}" if score else ""
            found.append(
                (
                    Markup("{}: {} of {}{}").format(heading, len(rows), format.count(total), ranked),
                    [_card(row, triads) for row in rows],
                )
            )
    return found


def _card(row: Row, triads: Triads) -> dict[str, Any]:
    names = ("kept", "type", "question", "answer", "rebuilt_question", "rebuilt_answer", "reason")
    scores = [(name, row[SCORE_PREFIX + name]) for name in triads.scores]
    return {name: row.get(name) for name in names} | {
        "image": format.thumbnail(row["image"]),
        "alt": f"The image that the question “{row['question'] or ''}” was written for ({row['id']})",
        "scores": scores,
        "truth": row.get("truth"),
    }
