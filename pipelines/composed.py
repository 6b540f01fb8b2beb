"""What an evaluation on the test rows of a composable split says of combinations that no training problem has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.compare import Evaluated


def composed(data: Mapping[str, Any], results: Sequence[Evaluated]) -> dict[str, Any]:
    """`composition` of `eval.json`: label -> `eval.composition.report`, or the `reason` why there is none. Empty where
    the data are not the test rows of a split, with its `split.json` beside them.

    Args:
        data: the section that the problems come from, its paths led to where they are.
    """
    from eval.composition.files import ABOUT, TEST
    from eval.composition.report import composition_report
    from eval.trial import TrialError
    from tasks.problem import TaskError

    source = Path(str(data.get("source", "")))
    split = source.with_name(ABOUT) if source.name == TEST else None
    if split is None or not split.is_file():
        return {}
    try:
        reports = {each.label: asdict(composition_report(each.trials, split)) for each in results}
    except (TaskError, TrialError) as error:
        return {"composition": {"reports": {}, "reason": str(error)}}
    return {"composition": {"reports": reports, "reason": None}}
