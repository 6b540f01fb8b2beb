"""Credit by a function of the user's, in the place of `credit.telescope`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rewards.contract import RewardError, raised
from rewards.files import function, written


class Plugged:
    """The function behind `path/to/file.py:function`, held to the shape of `telescope`.

    Raises `RewardError` where there is none.
    """

    def __init__(self, reference: str) -> None:
        found = written(reference, "credit")
        self._name = f"credit `{found.attribute}`"
        self._function: Callable[[Tensor, Tensor, int], Tensor] = function(str(found.path.resolve()), found.attribute)

    def __call__(self, outcome: Tensor, values: Tensor, size: int) -> Tensor:
        """(B,), (B, K) → (B, K + 1). It gets copies, and may write into them.

        Raises:
            RewardError: it raised, or returned anything but one number, or NaN, for each part.
        """
        try:
            found = self._function(outcome.clone(), values.clone(), size)
        except (Exception, SystemExit) as error:
            raise RewardError(raised(self._name, error, self._function)) from error
        if not isinstance(found, Tensor):
            raise RewardError(f"{self._name} returned {type(found).__name__}, no tensor")
        shape = (values.shape[0], values.shape[1] + 1)
        if tuple(found.shape) != shape or found.dtype != values.dtype or found.device != values.device:
            raise RewardError(
                f"{self._name} returned {found.dtype} of {tuple(found.shape)} on {found.device}; {values.dtype} of "
                f"{shape} on {values.device} is wanted: a number for each of the parts between {values.shape[1]} cuts"
            )
        if torch.isinf(found).any():
            raise RewardError(f"{self._name} returned an infinite number; NaN leaves a part as it is")
        return found.detach()
