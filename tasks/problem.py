"""Problems, and images without any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.faults import Faults


class TaskError(ValueError):
    """A task cannot be loaded as asked. The message is one line that names the file, row or column and the way out."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that nobody has asked anything about. `path` is a file on this machine."""

    id: str
    path: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with its gold answer.

    `cluster` names the unit that is drawn when an interval is made: problems of one cluster (one image, say) are not
    independent. `kind` is the question's type in the data's own terms, for break-downs. `columns` are what else its
    reward needs: the numbers of a countdown, the clues of a sudoku.
    """

    id: str
    question: str
    answer: str
    image: str | None = None
    cluster: str = ""
    kind: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)


OWN_COLUMNS = frozenset({"answer", "question", "kind", "image"})
"""What every problem hands to its reward, beside its `columns`."""
CALL_NAMES = frozenset(
    {
        "prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments",
        "prompt", "completion", "images",
    }
)  # fmt: skip
"""What TRL's trainers call a reward with, or read in their data: no column of a problem is called so."""


def column_names(problems: Sequence[Problem]) -> list[str]:
    """The columns that any of the problems has, in the order in which they first occur."""
    return list(dict.fromkeys(name for problem in problems for name in problem.columns))


@dataclass(frozen=True, slots=True)
class Rows:
    """What a task gives: the rows, and how many were left out for which reason.

    `lost`: those of the left out that were asked for: not rows in place of which others were drawn or taken. `faults`
    are the left out with their places, of which a slice of the problems has its own; None where they are in no order.
    """

    problems: Sequence[Problem] = ()
    pictures: Sequence[Picture] = ()
    dropped: tuple[tuple[str, int], ...] = ()
    lost: int = 0
    faults: Faults | None = field(default=None, compare=False)

    @property
    def left_out(self) -> Mapping[str, int]:
        """`dropped`, and as `no_question` the images about which no problem asks: what a labelled set cannot use."""
        silent = len({picture.path for picture in self.pictures} - {problem.image for problem in self.problems})
        return {**dict(self.dropped), **({"no_question": silent} if silent else {})}
