"""The table that a plan prints of what its stages will cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pipelines.cost import assumed
from pipelines.cost.devices import Device
from pipelines.cost.estimate import estimates
from pipelines.cost.work import Work
from pipelines.tables import new_table

if TYPE_CHECKING:
    from rich.table import Table

    from pipelines.plan import Step


def cost(steps: Iterable[Step], selected: set[str], device: Device) -> tuple[Table | None, list[str]]:
    """The table of the stages that are due, None where none is, and the lines that go with it."""
    due, lines, notes = [], [], {}
    legs = {step.leg.label: step.leg for step in steps}
    for label, leg in legs.items():
        wanted = {s.link.name for s in steps if s.leg.label == label and s.reason and label + s.link.name in selected}
        if not wanted:
            continue
        found, assumptions = estimates(leg.recipe, leg.links, device)
        due += [(label + name, found[name]) for name in found if name in wanted]
        notes.update(dict.fromkeys(assumptions))
    if not due:
        return None, []
    unknown = {work.unknown: name for name, work in reversed(due) if work.unknown}
    known = [(name, work) for name, work in due if not work.unknown]
    lines = [f"cost: {name}: {reason}" for reason, name in unknown.items()]
    if not any(work.phases for _, work in known):
        return None, lines
    return _table(known, device), [*lines, *_lines(known, device, list(notes))]


def _table(works: Sequence[tuple[str, Work]], device: Device) -> Table:
    unit = "GPU hours" if device.gpu else "core hours"
    table = new_table(
        "cost", "tokens read", "written", "trained", "FLOP", unit, "on the clock", "memory", "disk", right=8
    )
    for name, work in works:
        table.add_row(name, *_cells(work, device))
    if len(works) > 1:
        total = Work([phase for _, work in works for phase in work.phases], kept=sum(w.kept for _, w in works))
        memory = max((work.memory or 0.0 for _, work in works), default=0.0)
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


def _lines(works: Sequence[tuple[str, Work]], device: Device, notes: Sequence[str]) -> Iterator[str]:
    name, most = max(((name, work.most) for name, work in works), key=lambda each: each[1])
    if most > 1.5 * sum(work.kept for each, work in works if each == name):
        yield f"disk: {size(most)} while {name} runs"
    for name, work in works:
        if device.memory and work.memory and work.memory > device.memory:
            room = "the machine" if not device.gpu else f"one {device.name}"
            yield f"memory: {name} wants {size(work.memory)}, and {room} has {size(device.memory)}"
    yield (
        f"reckoned for {device.title}: {assumed.MATRIX_SHARE:.0%} of {_peak(device)}, "
        f"{assumed.BANDWIDTH_SHARE:.0%} of {device.bandwidth / 1e9:,.0f} GB/s; --on h100 for another (docs/cost.md)"
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
