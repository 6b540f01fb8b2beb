"""Tables on the terminal: plans, runs, stages, differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from pipelines.plan import Step
    from pipelines.store import StoredRun
    from rewards.check import Finding


def plan_table(steps: Iterable[Step], selected: set[str]) -> Table:
    """What would happen to each stage, and why."""
    table = new_table("stage", "", "why")
    for step in steps:
        name = step.leg.label + step.link.name
        if step.reason is None:
            table.add_row(name, "skip", "up to date")
        else:
            table.add_row(name, "run" if name in selected else "leave out", step.reason)
    return table


def run_table(run: StoredRun) -> Table:
    """The finished stages with rows, time and memory."""
    table = new_table("stage", "rows in", "rows out", "dropped", "seconds", "peak MiB", right=5)
    for stage, manifest in run.manifests.items():
        counts = (manifest.rows_in, manifest.rows_out, sum(manifest.dropped.values()) or None)
        table.add_row(stage, *map(cell, counts), f"{manifest.seconds:.1f}", str(manifest.peak_memory_mib))
    return table


def number_table(run: StoredRun) -> Table:
    """The numbers that the stages gave, why rows were dropped, and warnings."""
    table = new_table("stage", "number", "value", right=1)
    for stage, manifest in run.manifests.items():
        for name, value in manifest.numbers.items():
            table.add_row(stage, name, cell(value))
        for reason, count in manifest.dropped.items():
            table.add_row(stage, f"dropped: {reason}", str(count))
        for warning in manifest.warnings:
            table.add_row(stage, "warning", warning)
    return table


def runs_table(runs: Iterable[StoredRun]) -> Table:
    """One line for each run."""
    table = new_table("run", "finished stages", "last started")
    for run in runs:
        last = max((manifest.started for manifest in run.manifests.values()), default="")
        table.add_row(run.directory.name, ", ".join(run.manifests) or "none", last)
    return table


def difference_table(differences: Sequence[tuple[str, Any, Any]], a: str, b: str) -> Table:
    """Keys whose values differ between two runs."""
    table = new_table("", a, b)
    for key, left, right in differences:
        table.add_row(key, cell(left), cell(right))
    return table


def findings_table(findings: Iterable[Finding]) -> Table:
    """One line for each check of a reward."""
    table = new_table("", "check", "")
    for finding in findings:
        table.add_row("ok" if finding.ok else "FAILS", finding.check, finding.detail)
    return table


def plain_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Any rows of text."""
    table = new_table(*header)
    for row in rows:
        table.add_row(*map(Text, row))  # Text as it is: brackets in a question are no markup.
    return table


def cell(value: Any) -> str:
    """Four significant digits for a float; nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def new_table(*columns: str, right: int = 0) -> Table:
    """An empty table; its last `right` columns hold numbers."""
    table = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        numeric = number >= len(columns) - right
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    return table
