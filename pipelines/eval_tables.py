"""Evaluations on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from pipelines.tables import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.evaluation import Stored
    from pipelines.flips import Flips
    from pipelines.rescore import Rescored

MOST = 20
"""Problems that are named for each comparison, unless all are asked for."""


def result_table(results: Sequence[Stored]) -> Table:
    """Suites × checkpoints: accuracy with its interval, what had no answer, and pass@k where it was asked."""
    ks = sorted(
        {name for each in results for found in each.result["checkpoints"] for name in found["metrics"]} - {"pass@1"}
    )
    reported = any(found.get("protocol") for each in results for found in each.result["checkpoints"])
    table = new_table(
        "suite", "checkpoint", "problems", "%", "95 %", "flexible %", "unparsed %", "truncated %", "ungraded %",
        "tokens", *(f"{name} %" for name in ks), *(["reported by"] if reported else []), right=8 + len(ks),
    )  # fmt: skip
    for each in results:
        for found in each.result["checkpoints"]:
            trials = found["trials"]
            shares = [_percent(found["outcomes"][name] / trials) for name in ("unparsed", "truncated", "ungraded")]
            tokens = "" if found["mean_tokens"] is None else f"{found['mean_tokens']:.0f}"
            more = [_percent(found["metrics"].get(name, {}).get("value")) for name in ks]
            table.add_row(
                each.result["suite"]["name"], found["label"], _used(each.result),
                _percent(found["accuracy"]["value"]), _interval(found["accuracy"]), _percent(found["flexible"]),
                *shares, tokens, *more, *([_reported(found)] if reported else []),
            )  # fmt: skip
    return table


def comparison_table(results: Sequence[Stored]) -> Table:
    """The paired differences, in points; p adjusted for all that the table has, as in the report. `left out`: problems
    that one side could not grade, where there are any."""
    from eval.stats import holm

    pairs = [(each.result["suite"]["name"], pair) for each in results for pair in each.result["comparisons"]]
    lost = any(pair["left_out"] for _, pair in pairs)
    table = new_table(
        "suite", "difference", "%", "points", "95 %", "p (Holm)", *(["left out"] if lost else []), "verdict", right=0
    )
    adjusted = holm([pair["difference"]["p"] for _, pair in pairs])
    for (suite, pair), p in zip(pairs, adjusted, strict=True):
        estimate = pair["difference"]["estimate"]
        value = "" if estimate["value"] is None else f"{100 * estimate['value']:+.1f}"
        names = f"{pair['a']} − {pair['b']}"
        shares = " − ".join(_percent(share) for share in pair.get("shares", ()) if share is not None)
        shown = "" if p is None else f"{p:.3g}"
        left_out = [str(pair["left_out"] or "")] if lost else []
        table.add_row(suite, names, shares, value, _interval(estimate, "+"), shown, *left_out, pair["verdict"])
    return table


def moved_table(rescored: Rescored) -> Table:
    """How many verdicts a rescoring moved from what to what, and the two accuracies."""
    table = new_table("suite", "checkpoint", "% before", "% now", "verdicts moved", right=0)
    now = {each["label"]: each["accuracy"]["value"] for each in rescored.result["checkpoints"]}
    for before in rescored.of.result["checkpoints"]:
        moved = rescored.moved[before["label"]]
        ways = ", ".join(f"{a} → {b} {count}" for (a, b), count in sorted(moved.items())) or "none"
        table.add_row(
            rescored.result["suite"]["name"], before["label"], _percent(before["accuracy"]["value"]),
            _percent(now[before["label"]]), ways,
        )  # fmt: skip
    return table


def flip_table(found: Sequence[Flips], all_: bool = False) -> Table:
    """How many problems each suite gained and lost from the first run to the second, and which, or the first `MOST`."""
    table = new_table("suite", "checkpoints", "points", "95 %", "gained", "lost", "problems", right=0)
    for each in found:
        pair = each.comparison
        if pair is None:
            table.add_row(each.suite, "", "", "", "", "", f"not compared: {each.why_not}")
            continue
        estimate = asdict(pair.difference.estimate)
        value = "" if estimate["value"] is None else f"{100 * estimate['value']:+.1f}"
        ids = [f"+{name}" for name in pair.gained] + [f"-{name}" for name in pair.lost]
        most = len(ids) if all_ else MOST
        shown = ", ".join(ids[:most]) + (f", and {len(ids) - most} more: --all" if len(ids) > most else "")
        shown += f" ({pair.left_out} left out: ungraded)" if pair.left_out else ""
        table.add_row(
            each.suite, f"{pair.a} − {pair.b}", value, _interval(estimate, "+"),
            str(len(pair.gained)), str(len(pair.lost)), Text(shown),
        )  # fmt: skip
    return table


def _used(result: Mapping[str, Any]) -> str:
    used, original = result["problems"]["used"], result["problems"]["original"]
    return f"{used} of {original}" if result["partial"] else str(used)


def _reported(found: Mapping[str, Any]) -> str:
    """The numbers of the suite's protocol: percent, or points of the most there are."""
    shown = []
    for each in found.get("protocol", ()):
        value = each["estimate"]["value"]
        number = "unknown" if value is None else f"{each['full'] * value:.1f}"
        shown.append(f"{each['name']} {number}" + ("" if each["full"] == 100 else f" of {each['full']:.0f}"))
    return ", ".join(shown)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _interval(estimate: Mapping[str, Any], sign: str = "") -> str:
    if estimate["low"] is None:
        return estimate["reason"] or ""
    return f"[{100 * estimate['low']:{sign}.1f}, {100 * estimate['high']:{sign}.1f}]"
