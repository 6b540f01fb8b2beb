"""Checks an installation: versions against the windows that were tested, and the faults of a CPU stack.

The windows are the requirements of the installed distribution itself, so `pyproject.toml` is their one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console
from rich.table import Table

from engines import cpu_stack

DISTRIBUTION = "trivium-reasoning"

Verdict = Literal["ok", "optional", "missing", "outside", "conflict", "broken"]
_FAILING = ("missing", "outside", "conflict", "broken")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table."""

    component: str
    installed: str
    window: str
    verdict: Verdict
    way_out: str = ""

    @property
    def failing(self) -> bool:
        return self.verdict in _FAILING


def doctor(repair: bool = False, console: Console | None = None) -> int:
    """Prints the table; with `repair`, mends a CPU stack first. Exit status 0 where nothing fails, else 1."""
    console = console or Console()
    if repair:
        for line in cpu_stack.repair():
            console.print(f"mended {line}", markup=False, highlight=False)
    findings = list(examine())
    table = Table("component", "installed", "tested window", "verdict", box=None)
    table.add_column("way out", overflow="fold")  # a command cut short is none
    for finding in findings:
        style = "red" if finding.failing else "dim" if finding.verdict == "optional" else None
        table.add_row(
            finding.component, finding.installed, finding.window, finding.verdict, finding.way_out, style=style
        )
    console.print(table, markup=False)
    failing = sum(finding.failing for finding in findings)
    console.print(f"{failing} of {len(findings)} need attention" if failing else "all is well")
    return 1 if failing else 0


def examine() -> Iterator[Finding]:
    """Every requirement of the installed package, what those require of each other, and the CPU stack's faults."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Finding(DISTRIBUTION, "-", "", "missing", "pip install . in the checkout")
        return
    requirements = [Requirement(line) for line in lines]
    for requirement in requirements:
        yield _window(requirement)
    yield from _conflicts({canonicalize_name(requirement.name) for requirement in requirements})
    for fault in cpu_stack.faults():
        component, _, what = fault.partition(": ")
        yield Finding(component, what, "", "broken", "trivium doctor --repair")


def _window(requirement: Requirement) -> Finding:
    extra = _extra(requirement)
    window = str(requirement.specifier) or "any"
    component = f"{requirement.name} [{extra}]" if extra else requirement.name
    version = cpu_stack.installed(requirement.name)
    target = f"{DISTRIBUTION}[{extra}]" if extra else DISTRIBUTION
    if version is None:
        return Finding(component, "-", window, "optional" if extra else "missing", f"pip install '{target}'")
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding(
            component, version, window, "outside", f"pip install '{requirement.name}{requirement.specifier}'"
        )
    return Finding(component, version, window, "ok")


def _extra(requirement: Requirement) -> str | None:
    """The extra that a requirement belongs to; its marker reads `extra == "NAME"`."""
    if requirement.marker is None or requirement.marker.evaluate(_environment("")):
        return None
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    return next((extra for extra in extras if requirement.marker.evaluate(_environment(extra))), None)


def _environment(extra: str) -> dict[str, str]:
    return {**{key: str(value) for key, value in default_environment().items()}, "extra": extra}


def _conflicts(names: set[str]) -> Iterator[Finding]:
    """Requirements of the installed components on each other that do not hold: torchvision's on torch, say."""
    for name in sorted(names):
        if cpu_stack.installed(name) is None:
            continue
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            version = cpu_stack.installed(needed.name)
            applies = needed.marker is None or needed.marker.evaluate(_environment(""))
            if version is None or not applies or canonicalize_name(needed.name) not in names:
                continue
            if not needed.specifier.contains(version, prereleases=True):
                window = f"{needed.specifier} (for {name} {cpu_stack.installed(name)})"
                way_out = f"pip install '{needed.name}{needed.specifier}'"
                yield Finding(needed.name, version, window, "conflict", way_out)
