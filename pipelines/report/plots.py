"""The report's plots: matplotlib drawings as inline SVG that takes its colours and its font from the page.

Each function returns one `<svg>` element. Text stays text, so that it can be read aloud, searched and scaled.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Stand-ins that matplotlib writes and `_inline` replaces by the page's own colours, so that dark mode works.
INK, MUTED, ACCENT, LINE, PAPER = "#010101", "#020202", "#030303", "#040404", "#050505"
_COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    ACCENT: "var(--accent)",
    LINE: "var(--line)",
    PAPER: "var(--paper)",
}
_WIDTH = 5.6  # Inches at 72 points: near the size that it has on the page, so that text is neither huge nor tiny.


@dataclass(frozen=True, slots=True)
class Bar:
    """A labelled value with its interval; `strong` ones are in the accent colour. `points`: single seeds."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    strong: bool = True
    points: Sequence[float] = ()


def forest(bars: Sequence[Bar], title: str, unit: str, *, reference: tuple[float, str] | None = None) -> str:
    """Values with intervals, one row each, the first on top. `reference`: a vertical line and what it is."""
    with _figure(0.75 + 0.36 * len(bars)) as (figure, axes):
        for row, bar in enumerate(bars):
            if bar.value is None:
                continue
            colour = ACCENT if bar.strong else MUTED
            if bar.low is not None and bar.high is not None:
                axes.plot([bar.low, bar.high], [row, row], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot(bar.value, row, "o", color=colour, markersize=7)
            axes.plot(bar.points, [row + 0.3] * len(bar.points), "o", color=MUTED, markersize=2.5)
        if reference is not None:
            axes.axvline(reference[0], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
            axes.annotate(
                reference[1],
                (reference[0], 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                color=MUTED,
                fontsize=9,
            )
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlabel(unit)
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        return _inline(figure, title)


@dataclass(frozen=True, slots=True)
class Line:
    """Values in order, named at their end. `marks`: places that are marked by a dot and the interval there."""

    label: str
    places: Sequence[float]
    values: Sequence[float]
    marks: Mapping[float, Bar] = field(default_factory=dict)


def lines(
    drawn: Sequence[Line], title: str, across: str, unit: str, *, mark: float | None = None, logarithmic: bool = False
) -> str:
    """Curves, the first in the accent colour, each with its name at the right. `mark`: a dotted line at this place."""
    with _figure(2.9) as (figure, axes):
        for number, line in reversed(list(enumerate(drawn))):
            colour, width = (MUTED, 1.1) if number else (ACCENT, 2)
            axes.plot(line.places, line.values, color=colour, linewidth=width)
            for place, bar in line.marks.items():
                if bar.value is not None:
                    axes.plot(place, bar.value, "o", color=colour, markersize=5)
                if bar.low is not None and bar.high is not None:
                    axes.plot([place, place], [bar.low, bar.high], color=colour, linewidth=1.2)
        if mark is not None:
            axes.axvline(mark, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        else:
            axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _name_ends(axes, drawn)
        axes.set_xlabel(across)
        axes.set_ylabel(unit)
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        return _inline(figure, title)


def _name_ends(axes: Any, drawn: Sequence[Line]) -> None:
    """Names at the ends of the lines, moved apart where they would lie on one another."""
    axes.figure.canvas.draw()
    least = 11.0  # points from one name to the next
    scale = 72 / axes.figure.dpi
    above = -float("inf")
    for number, line in sorted(enumerate(drawn), key=lambda each: each[1].values[-1]):
        end = (line.places[-1], line.values[-1])
        height = axes.transData.transform(end)[1] * scale
        shift = max(0.0, above + least - height)
        above = height + shift
        axes.annotate(
            line.label, end, xytext=(4, shift), textcoords="offset points", va="center", fontsize=9,
            color=MUTED if number else ACCENT, annotation_clip=False,
        )  # fmt: skip


def paired_dots(rows: Sequence[tuple[str, Bar, Bar]], title: str, unit: str) -> str:
    """Two values per row: the earlier one muted, the later one in the accent colour, with intervals."""
    with _figure(0.75 + 0.42 * len(rows)) as (figure, axes):
        for row, (_, before, after) in enumerate(rows):
            for bar, shift, colour in ((before, -0.13, MUTED), (after, 0.13, ACCENT)):
                if bar.value is None:
                    continue
                if bar.low is not None and bar.high is not None:
                    axes.plot([bar.low, bar.high], [row + shift] * 2, color=colour, linewidth=1.8)
                axes.plot(bar.value, row + shift, "o", color=colour, markersize=6)
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(unit)
        axes.grid(axis="x", color=LINE, linewidth=0.8)
        return _inline(figure, title)


def histogram(kept: Sequence[float], dropped: Sequence[float], title: str, unit: str) -> str:
    """Shares of the kept (accent) and of the dropped (outline) rows per bin of a score."""
    import numpy as np

    edges = np.histogram_bin_edges([*kept, *dropped], bins=24)
    with _figure(2.5) as (figure, axes):
        for values, style in (
            (kept, {"color": ACCENT, "alpha": 0.75}),
            (dropped, {"color": INK, "histtype": "step", "linewidth": 1.4}),
        ):
            if values:
                axes.hist(values, edges, weights=[100 / len(values)] * len(values), **style)
        axes.set_xlabel(unit)
        axes.set_ylabel("% of group")
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        return _inline(figure, title)


def calibration(bins: Sequence[Bar], base: float, title: str, unit: str) -> str:
    """Share of right pairs (%) by bin of a score, from low to high; a dotted line at the share over all."""
    with _figure(2.5) as (figure, axes):
        axes.axhline(base, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        for place, bar in enumerate(bins):
            axes.plot([place, place], [bar.low, bar.high], color=ACCENT, linewidth=2)
        axes.plot(range(len(bins)), [bar.value for bar in bins], "o-", color=ACCENT, linewidth=1, markersize=6)
        axes.set_xticks(range(len(bins)), [bar.label for bar in bins], fontsize=9)
        axes.set_xlabel(unit)
        axes.set_ylabel("% right")
        axes.grid(axis="y", color=LINE, linewidth=0.8)
        return _inline(figure, title)


@contextmanager
def _figure(height: float) -> Iterator[tuple[Any, Any]]:
    import matplotlib
    from matplotlib.figure import Figure

    settings: Mapping[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "trivium",
        "font.size": 11,
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 10,
        "axes.edgecolor": LINE,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "ytick.major.size": 0,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(dict(settings)):
        # Figure itself, not pyplot: no window system, nothing kept globally.
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        yield figure, axes


def _inline(figure: Any, title: str) -> str:
    """The drawing as an element that may stand beside others: own ids, no metadata, the page's colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r"<defs>\s*<style.*?</defs>", "", drawing, count=1, flags=re.DOTALL)
    prefix = f"plot-{hashlib.sha256(title.encode()).hexdigest()[:8]}-"
    drawing = re.sub(r'\bid="', f'id="{prefix}', drawing)
    drawing = re.sub(r"url\(#", f"url(#{prefix}", drawing)
    drawing = re.sub(r'xlink:href="#', f'href="#{prefix}', drawing)
    view = re.search(r'viewBox="[^"]+"', drawing)
    assert view is not None, "matplotlib writes a viewBox"
    label = html.escape(title, quote=True)
    drawing = re.sub(r"<svg[^>]*>", f'<svg {view.group()} role="img" aria-label="{label}">', drawing, count=1)
    for stand_in, colour in _COLOURS.items():
        drawing = drawing.replace(stand_in, colour)
    return drawing
