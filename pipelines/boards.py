"""Whether the recurrent reasoners among checkpoints can read what they are to be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.checkpoints import engine_kind
from pipelines.errors import RunError

if TYPE_CHECKING:
    from tasks.problem import Problem


def check_boards(suite: str, checkpoints: Mapping[str, str], problems: Sequence[Problem]) -> None:
    """`checkpoints`: label -> directory. Raises `RunError` where one is a reasoner that can read none of the problems,
    which would all be ungraded."""
    reasoners = {label: path for label, path in checkpoints.items() if engine_kind(path) == "latent"}
    if not reasoners or not problems:
        return
    from selfrefine.latent.config import LatentReasonerConfig
    from selfrefine.latent.grids import GridError, read_board

    for label, path in reasoners.items():
        config, reasons = LatentReasonerConfig.from_pretrained(path), Counter[str]()
        for problem in problems:
            try:
                read_board(problem.question, problem.image, config)
            except GridError as error:
                reasons[str(error)] += 1
        if reasons.total() == len(problems):
            raise RunError(
                f"{suite}: {label} can read none of the {len(problems)} problems, most often: "
                f"{reasons.most_common(1)[0][0]}; ask it a suite of grids such as it was trained on"
            )
