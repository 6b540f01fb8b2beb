"""What may go wrong in a run, apart from bugs. Every message is one line: what is wrong, where, and the way out."""

from __future__ import annotations

import errno

from engines.base import EngineError
from eval.suite import CompareError
from eval.suite_file import SuiteError
from eval.trial import TrialError
from rewards.contract import RewardError
from tasks.problem import TaskError


class RecipeError(ValueError):
    """A recipe, or an override of it, that cannot be run as written. One line for each thing that is wrong."""


class RunError(RuntimeError):
    """A run directory that is not in a state to go on with."""


class Interrupted(Exception):
    """Someone asked the run to stop, and the stage has reached a point that it can resume from."""


_OURS = (RecipeError, RunError, TaskError, EngineError, RewardError, CompareError, SuiteError, TrialError)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def explain(error: BaseException) -> str | None:
    """The message for a mistake that the user can mend; None for anything else, which deserves its traceback."""
    if isinstance(error, _OURS):
        return str(error)
    if isinstance(error, OSError):
        place = error.filename or "a file"
        if error.errno in _FULL:
            return _full_disk(str(place))
        if error.errno in _CLOSED:
            return f"{place}: cannot be written or read ({error.strerror}); choose another place with --runs DIR"
    if "No space left on device" in str(error):  # Libraries in other languages wrap the system's error.
        return _full_disk("a file")
    if type(error).__name__ == "OutOfMemoryError":
        return (
            "out of accelerator memory; lower engine.batch_size (transformers), engine.gpu_memory_utilization or "
            "engine.max_num_seqs (vllm), or raise `accumulate` (training)"
        )
    return None


def _full_disk(place: str) -> str:
    return f"the disk is full while writing {place}; what is done is kept: free space and run the same command again"
