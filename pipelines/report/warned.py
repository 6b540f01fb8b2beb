"""What stages warn of, gathered: many suites warn of one thing in many lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.report.run import RunView

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class Warned:
    """Warnings that differ in their numbers at most. `lines`: (place, text) of each, in order."""

    lines: Sequence[tuple[str, str]]

    @property
    def text(self) -> str:
        """The first one's, with dots where the others have another number."""
        texts = [text for _, text in self.lines]
        numbers = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
        shown = iter([each[0] if len(set(each)) == 1 else "…" for each in numbers])
        return _NUMBER.sub(lambda _: next(shown), texts[0])

    @property
    def places(self) -> Sequence[str]:
        """The stages, each once."""
        return list(dict.fromkeys(place.partition(" (")[0] for place, _ in self.lines))


def warned(runs: Sequence[RunView], *, named: bool) -> list[Warned]:
    """The warnings of all stages, gathered by what they say, in order of the first. `named`: the place has the run."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        labels = {each["label"] for stored in run.evaluations for each in stored.result["checkpoints"]}
        for stage in run.stages:
            place = f"{run.name}, {stage.name}" if named else stage.name
            for warning in stage.manifest.warnings:
                # The checkpoint that an evaluation's warning begins with belongs to its place.
                label, _, rest = warning.partition(": ")
                where, text = (f"{place} ({label})", rest) if rest and label in labels else (place, warning)
                groups.setdefault(_NUMBER.sub("–", text), []).append((where, text))
    return [Warned(lines) for lines in groups.values()]
