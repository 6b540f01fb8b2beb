"""The table that a plan prints of what its stages will cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.cost import assumed
from pipelines.cost.devices import Device
from pipelines.cost.estimate import estimates
from pipelines.cost.work import Work
from pipelines.tables import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.plan import Step


@dataclass(frozen=True, slots=True)
class Due:
    """A stage that is due, in so many seeds, which cost the same."""

    name: str
    work: Work
    seeds: int

    @property
    def title(self) -> str:
        """`3 × tune`."""
        return self.name if self.seeds == 1 else f"{self.seeds} × {self.name}"


def cost(
    steps: Sequence[Step], selected: set[str], device: Device, hint: bool = False
) -> tuple[Table | None, list[str]]:
    """The table of the stages that are due, None where none is, and the lines that go with it.

    `hint`: say how to reckon for another machine.
    """
    due: dict[str, Due] = {}
    notes: dict[str, None] = {}
    for leg in {step.leg.label: step.leg for step in steps}.values():
        wanted = {s.link.name for s in steps if s.leg is leg and s.reason and leg.label + s.link.name in selected}
        if not wanted:
            continue
        found, assumptions = estimates(leg.recipe, leg.links, device)
        notes.update(dict.fromkeys(assumptions))
        for name, work in found.items():
            if name in wanted:
                due[name] = Due(name, work, due[name].seeds + 1 if name in due else 1)
    unknown: dict[str, str] = {}
    for each in due.values():
        if each.work.unknown:
            unknown.setdefault(each.work.unknown, each.name)
    lines = [f"cost: {name}: {reason}" for reason, name in unknown.items()]
    known = [each for each in due.values() if not each.work.unknown]
    if not any(each.work.phases for each in known):
        return None, lines
    return _table(known, device), [*lines, *_lines(known, device, list(notes), hint)]


def _table(due: Sequence[Due], device: Device) -> Table:
    unit = "GPU hours" if device.gpu else "core hours"
    table = new_table(
        "cost", "tokens read", "written", "trained", "FLOP", unit, "on the clock", "memory", "disk", right=8
    )
    for each in due:
        table.add_row(each.title, *_cells(each.work, device))
    if len(due) > 1 or due[0].seeds > 1:
        phases = [phase for each in due for _ in range(each.seeds) for phase in each.work.phases]
        total = Work(phases, kept=sum(each.work.kept * each.seeds for each in due))
        memory = max(each.work.memory or 0.0 for each in due)
        table.add_section()
        table.add_row("in all", *_cells(total, device, memory))
    return table


def _cells(work: Work, device: Device, memory: float | None = None) -> list[str]:
    taken = work.memory if memory is None else memory
    return [
        _amount(work.prompt),
        _amount(work.generated),
        _amount(work.trained),
        f"{work.flops:.1e}" if work.flops else "",
        _hours(work.device_seconds(device)),
        clock(work.seconds(device)),
        size(taken) if taken else "",
        size(work.kept),
    ]


def _lines(due: Sequence[Due], device: Device, notes: Sequence[str], hint: bool) -> Iterator[str]:
    largest = max(due, key=lambda each: each.work.most)
    if largest.work.most > 1.5 * largest.work.kept:
        yield f"disk: {size(largest.work.most)} while {largest.name} runs"
    for each in due:
        if device.memory and each.work.memory and each.work.memory > device.memory:
            room = "the machine" if not device.gpu else f"one {device.name}"
            yield f"memory: {each.name} wants {size(each.work.memory)}, and {room} has {size(device.memory)}"
    yield (
        f"reckoned for {device.title}: {assumed.MATRIX_SHARE:.0%} of {_peak(device)}, "
        f"{assumed.BANDWIDTH_SHARE:.0%} of {device.bandwidth / 1e9:,.0f} GB/s (docs/cost.md)"
        + ("; another machine: --on 8xh100" if hint else "")
    )
    if notes:
        yield f"assumed: {'; '.join(notes)}"


def _peak(device: Device) -> str:
    if not device.gpu:
        return f"{device.fp32 / 1e9:,.0f} GFLOP/s a core"
    return f"{device.bf16 / 1e12:,.0f} TFLOP/s in bfloat16 and {device.fp32 / 1e12:,.0f} in float32"


def _amount(number: float) -> str:
    """Three digits at most: 950, 1.2k, 34M."""
    if not number:
        return ""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            value = number / unit
            return f"{value:.1f}{name}" if value < 10 else f"{value:.0f}{name}"
    return f"{number:.0f}"


def size(number: float) -> str:
    """Bytes in decimal units."""
    return f"{_amount(number)}B" if number >= 1000 else f"{number:.0f} B"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if not hours:
        return ""
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


def clock(seconds: float) -> str:
    """To two digits: 40 s, 12 min, 5.5 h, 3.2 days."""
    for unit, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * unit:
            value = seconds / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:.0f} {name}"
    return f"{seconds:.0f} s" if seconds else ""
