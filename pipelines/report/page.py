"""The page of one run."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from eval.trial import OUTCOMES
from pipelines.evaluation import KINDS
from pipelines.report import format, plots
from pipelines.report.measures import measure_all, power_line
from pipelines.report.overview import overview, published_for
from pipelines.report.plots import Bar
from pipelines.report.refinement import read_refinement
from pipelines.report.run import RunView, StageView
from pipelines.report.samples import pack_samples
from pipelines.report.triads import Audit, FilterMeans, Row, Triads, filter_means, read_triads
from pipelines.report.warned import warned
from pipelines.stages.filter import COMBINED, SCORE_PREFIX

GALLERY = 9
"""Triads of each sort that are shown."""
MOST_SCORES = 4
"""Score columns that are drawn, the one that selected first; the audit's table keeps all."""


def render_run(run: RunView) -> str:
    """The whole HTML page. Raises `TrialError` where the trials of an evaluation cannot be read."""
    measured = measure_all(run.evaluations)
    # One evaluation is shown in depth, several side by side with the depth of each below.
    one = measured[0] if len(measured) == 1 else None
    chosen = _filter_stage(run)
    triads = read_triads(chosen.directory) if chosen else None
    score = _selecting_score(chosen, triads) if chosen and triads else None
    drawn = sorted(triads.scores, key=lambda name: name != score)[:MOST_SCORES] if triads else []
    audit = triads.audit if triads else None
    samples = pack_samples(measured)
    return render(
        "run.html.j2",
        script=script() if samples else None,
        title=run.name,
        run=run,
        only_evaluations=all(stage.kind in KINDS for stage in run.stages),
        trained=bool(run.of_kind("update")),
        one=one,
        published=published_for(run, one) if one else None,
        overview=overview(run, measured) if len(measured) > 1 else None,
        measured=measured,
        partials=[(each.title, each.result["problems"]) for each in measured if each.result["partial"]],
        warned=warned([run], named=False),
        samples=samples,
        outcomes=OUTCOMES,
        scores_note=Markup('<span class="key box"></span> kept, <span class="key line"></span> dropped'),
        triads=triads,
        proposed=_proposed(run, chosen) if chosen and triads else 0,
        filters=_filters(run),
        audit=audit,
        dropped=_dropped(run.stages),
        gallery=_gallery(triads, score),
        refinement=read_refinement(run.stages),
        plots={
            "scores": _score_plots(triads, drawn) if triads else [],
            "truth": _truth_plots(triads, audit, drawn) if triads and audit else [],
        },
    )


def render(template: str, *, script: Markup | None = None, **values: Any) -> str:
    """Fills a template. Everything that is not `Markup` is escaped; a name that is missing is an error.

    The policy of the page lets `script` run, known by its digest, and no other.
    """
    digest = None if script is None else base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"; script-src 'sha256-{digest}'" if digest else ""
    page = _environment().get_template(template)
    return str(page.render(style=Markup(_asset("style.css", "samples.css")), script=script, policy=policy, **values))


def script() -> Markup:
    """What a page with samples runs."""
    return Markup(_asset("samples_data.js", "samples_parts.js", "samples.js"))


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
    names = (
        "percent", "points", "interval", "interval_points", "interval_decimal", "count", "decimal", "p_value",
        "duration", "number",
    )  # fmt: skip
    environment.filters.update({name: getattr(format, name) for name in names})
    environment.filters["asdict"] = asdict
    environment.filters["power_line"] = power_line
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    return environment


def _asset(*names: str) -> str:
    folder = Path(__file__).with_name("templates")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def _filter_stage(run: RunView) -> StageView | None:
    """The last filter of the shared chain; an arm's where there is no other."""
    filters = run.of_kind("filter")
    return next((stage for stage in reversed(filters) if stage.arm is None), filters[-1] if filters else None)


def _filters(run: RunView) -> list[FilterMeans]:
    read = ((stage.name, read_triads(stage.directory)) for stage in run.of_kind("filter"))
    return [filter_means(name, [triads]) for name, triads in read if triads is not None]


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
