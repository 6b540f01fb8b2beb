"""Which problems flipped between two runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.evaluation import originals

if TYPE_CHECKING:
    from eval.compare import Comparison, Evaluated


@dataclass(frozen=True, slots=True)
class Flips:
    """One suite's result in both runs. `why_not`: why they cannot be compared, else None."""

    suite: str
    comparison: Comparison | None
    why_not: str | None = None


def flips(a: Path, b: Path, allow: Sequence[str] = ()) -> Iterator[Flips]:
    """For each suite that both runs were evaluated on, each checkpoint of one name in both, `b` against `a`.

    Runs that share no name are compared by the last checkpoint of each. `allow`: settings in which they may differ.
    """
    from eval.compare import compare
    from eval.suite import CompareError, SettingsDiffer

    before = {each.result["suite"]["name"]: each for each in originals(a)}
    after = {each.result["suite"]["name"]: each for each in originals(b)}
    for suite in [name for name in before if name in after]:
        for new, old in _pairs(before[suite].evaluated(), after[suite].evaluated()):
            try:
                yield Flips(suite, compare(new, old, allow=allow))
            except SettingsDiffer as error:
                way_out = f"; --allow {','.join([*allow, *error.groups])} compares them" if error.groups else ""
                yield Flips(suite, None, f"{error}{way_out}")
            except CompareError as error:
                yield Flips(suite, None, str(error))


def _pairs(before: list[Evaluated], after: list[Evaluated]) -> list[tuple[Evaluated, Evaluated]]:
    old = {each.label: each for each in before}
    shared = [(each, old[each.label]) for each in after if each.label in old]
    return shared or [(after[-1], before[-1])]
