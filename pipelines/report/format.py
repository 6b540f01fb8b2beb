"""How the report writes numbers. What has no value is a dash, never 0."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

DASH = "–"
MINUS = "−"
THUMBNAIL = 192
"""Pixels of the longer side of a gallery image."""


def data(value: float | int | None, text: str) -> Markup:
    """A number as it is shown, with its exact value for machines."""
    return Markup(DASH) if value is None else Markup('<data value="{}">{}</data>').format(repr(value), text)


def percent(value: float | None) -> Markup:
    """A share as a percentage with one decimal, without the sign."""
    return data(value, "" if value is None else f"{100 * value:.1f}")


def points(value: float | None) -> Markup:
    """A difference of shares in percentage points, with its sign."""
    return data(value, "" if value is None else signed(100 * value))


def signed(value: float) -> str:
    text = f"{value:+.1f}"
    return ("0.0" if float(text) == 0 else text).replace("-", MINUS)


def interval(estimate: Mapping[str, Any]) -> Markup:
    """[low, high] of an accuracy, in percent."""
    return _interval(estimate, percent)


def interval_points(estimate: Mapping[str, Any]) -> Markup:
    """[low, high] of a difference, in points."""
    return _interval(estimate, points)


def interval_decimal(estimate: Mapping[str, Any], digits: int = 2) -> Markup:
    """[low, high] of a ratio, or of points."""
    return _interval(estimate, lambda value: decimal(value, digits))


def _interval(estimate: Mapping[str, Any], written: Callable[[float | None], Markup]) -> Markup:
    if estimate["low"] is None:
        return Markup('<span title="{}">{}</span>').format(estimate["reason"] or "", DASH)
    return Markup('<span class="range">[{}, {}]</span>').format(written(estimate["low"]), written(estimate["high"]))


def count(value: int | None) -> Markup:
    """A whole number with narrow no-break spaces between thousands."""
    return data(value, "" if value is None else f"{value:,}".replace(",", "\u202f"))


def decimal(value: float | None, digits: int = 2) -> Markup:
    return data(value, "" if value is None else f"{value:.{digits}f}".replace("-", MINUS))


def p_value(value: float | None) -> Markup:
    if value is None:
        return Markup(DASH)
    return data(value, "< 0.001" if value < 0.001 else f"{value:.3f}")


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds is None:
        return DASH
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number(value: Any) -> Markup:
    """Any number or text of a manifest."""
    if isinstance(value, bool) or value is None:
        return escape(DASH if value is None else value)
    if isinstance(value, int):
        return count(value)
    return data(value, f"{value:.4g}".replace("-", MINUS)) if isinstance(value, float) else escape(value)


def thumbnail(path: str | None, side: int = THUMBNAIL) -> str | None:
    """An image file as a small data URI; None where it cannot be read. Up to `side` pixels it stays lossless."""
    from PIL import Image, UnidentifiedImageError

    if path is None or not Path(path).is_file():
        return None
    try:
        with Image.open(path) as image:
            lossless = max(image.size) <= side
            picture = image.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return None
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    if lossless:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "JPEG", quality=82)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
